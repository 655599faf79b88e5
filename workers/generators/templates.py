"""Templates of a workflow: sandboxed, strict, the same for the same row (design 05, *Generators*).

Row values are data: they are put into the text and never read as templates themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import TemplateSyntaxError

from forebay.workers.evaluation.evaluator import EvaluationFailed, EvaluationRefused, evaluator
from forebay.workers.evaluation.templates import ParsedTemplate, TemplateFailed, render
from forebay.workers.generators.base import RecordRejected

MOST_RENDERED_HERE: Final = 1_000_000
"""Parts of a plain template times the size of its values, up to which the event loop renders it
itself: some milliseconds."""


class RowTemplate:
    """A template over the values of a record.

    A plain one (constant text, look-ups, ``if``, a few filters) is rendered in this process; every
    other one where its CPU time and memory are bounded (ADR 0013).
    """

    def __init__(self, field: str, source: str) -> None:
        """Parse ``source``; nothing of it is run.

        Args:
            field: the field of the column that holds it, for reasons ("prompt").
            source: the template's text.

        Raises:
            TemplateSyntaxError: with ``lineno`` and ``message``; an unknown filter or test, an
                inclusion of another template and what Python cannot compile are refused so, too.
        """
        parsed = ParsedTemplate(source)
        self.variables = parsed.variables
        self._field = field
        self._source = source
        self._nodes = parsed.nodes
        self._template = parsed.compile() if parsed.is_plain else None

    async def render(self, values: Mapping[str, Any]) -> str:
        """Return the text for one record.

        Raises:
            RecordRejected: with the field, the line and the kind of error.
        """
        used = {name: values[name] for name in self.variables if name in values}
        try:
            if self._template is not None and _is_small(used, MOST_RENDERED_HERE // self._nodes):
                return render(self._template, self._field, used)
            rendered: str = await evaluator().evaluate(
                "template", source=self._source, field=self._field, values=used
            )
        except (TemplateFailed, EvaluationRefused) as error:
            raise RecordRejected(str(error)) from None
        except EvaluationFailed as error:
            raise RecordRejected(f"template_error in {self._field}: {error}") from None
        return rendered


def check_template(source: str) -> Mapping[str, int]:
    """Return the names that a template looks up, with the line of each first use.

    Raises:
        TemplateSyntaxError: it cannot be used; `RowTemplate` finds most faults, and this all.
    """
    parsed = ParsedTemplate(source)
    parsed.compile()
    return {name: parsed.lines.get(name, 1) for name in parsed.variables}


def is_template_word(name: str) -> bool:
    """Say whether a template would read ``name`` as its own word, such as ``true`` or ``range``."""
    if not name.isidentifier():
        return False
    try:
        return RowTemplate("name", f"{{{{ {name} }}}}").variables != {name}
    except TemplateSyntaxError:
        return True


def _is_small(values: Mapping[str, Any], most: int) -> bool:
    """Say whether values have at most so many characters, each value counting some itself."""
    left: list[Any] = [*values.values()]
    size = 0
    while left and size <= most:
        value = left.pop()
        size += 16
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, int):
            size += value.bit_length() // 3
        elif isinstance(value, dict):
            size += sum(map(len, value))
            left += value.values()
        elif isinstance(value, list):
            left += value
    return size <= most
