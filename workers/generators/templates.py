"""Templates of a workflow: sandboxed, strict, the same for the same row (spec 05).

Row values are data: they are put into the text and never read as templates themselves.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from typing import Any, Final

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from forebay.workers.generators.base import RecordRejected


def _shown(value: Any) -> Any:
    """Print structured values as JSON, which models read better than Python."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


class _RowEnvironment(ImmutableSandboxedEnvironment):
    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, finalize=_shown)
        # Chance would make another record of the same row after a crash.
        del self.globals["lipsum"]
        del self.filters["random"]

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Let a key of a structured value win over a method of its name, such as ``items``."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


_ENVIRONMENT: Final = _RowEnvironment()


class RowTemplate:
    """A compiled template over the values of a record."""

    def __init__(self, field: str, source: str) -> None:
        """Compile ``source``.

        Args:
            field: the field of the column that holds it, for reasons ("prompt").
            source: the template's text.

        Raises:
            TemplateSyntaxError: with ``lineno`` and ``message``; an unknown filter or test, an
                inclusion of another template and what Python cannot compile are refused so, too.
        """
        self._field = field
        try:
            self.variables, self._template = _compiled(source)
        except TemplateSyntaxError:
            raise
        except RecursionError:
            raise TemplateSyntaxError("nested too deep; make it flatter", 1) from None
        except Exception as error:
            # Such as blocks nested deeper, or numbers longer, than Python takes.
            raise TemplateSyntaxError(f"{type(error).__name__}: {error}", 1) from error

    def render(self, values: Mapping[str, Any]) -> str:
        """Return the text for one record.

        Raises:
            RecordRejected: with the field, the line and the kind of error.
        """
        try:
            text = self._template.render(values)
            text.encode()
        except UnicodeEncodeError:
            raise RecordRejected(f"invalid_text in {self._field}: a lone surrogate") from None
        except Exception as error:  # noqa: BLE001 - an expression can fail in any way
            lines = [
                frame.lineno
                for frame in traceback.extract_tb(error.__traceback__)
                if frame.filename == "<template>"
            ]
            where = f"{self._field} line {lines[-1]}" if lines else self._field
            # The message of the error may hold row values: only its type is told, and no cause.
            raise RecordRejected(f"template_error in {where}: {type(error).__name__}") from None
        return text


def _compiled(source: str) -> tuple[frozenset[str], Template]:
    tree = _ENVIRONMENT.parse(source)
    for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
        outside = tree.find(kind)
        if outside is not None:
            raise TemplateSyntaxError("no other template can be loaded here", outside.lineno)
    return frozenset(meta.find_undeclared_variables(tree)), _ENVIRONMENT.from_string(source)


def is_template_word(name: str) -> bool:
    """Say whether a template would read ``name`` as its own word, such as ``true`` or ``range``."""
    if not name.isidentifier():
        return False
    try:
        return RowTemplate("name", f"{{{{ {name} }}}}").variables != {name}
    except TemplateSyntaxError:
        return True
