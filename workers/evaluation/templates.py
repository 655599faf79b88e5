"""Templates: parsed without being run, and run within bounds (design 05, ADR 0013).

Imports Jinja2 and nothing of the project but limits: the process that evaluates imports this.
Jinja works out constant expressions while it compiles, so that ``{{ 9 ** 9 ** 9 }}`` never ends;
here nothing is worked out before a template is rendered.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment

from forebay.workers.evaluation.limits import MOST_RENDERED_CHARACTERS

MOST_DEPTH: Final = 100
"""Most levels of a template's nested expressions and blocks."""
MOST_BLOCKS: Final = 5_000
"""Most ``{{`` and ``{%`` in one template."""
MOST_PLAIN_NODES: Final = 1_000
"""A plain template has fewer parts than this."""

_LOADING: Final = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_PLAIN: Final = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.If,
    nodes.Name,
    nodes.Const,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.CondExpr,
    nodes.Filter,
    nodes.Test,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Neg,
    nodes.Pos,
    nodes.Add,
    nodes.Sub,
    nodes.Concat,
    nodes.List,
    nodes.Tuple,
    nodes.Keyword,
)
_PLAIN_FILTERS: Final = frozenset(
    {
        *("capitalize", "count", "d", "default", "e", "escape", "first", "float", "int", "last"),
        *("length", "lower", "safe", "string", "title", "tojson", "trim", "upper"),
    }
)


class TemplateFailed(Exception):  # noqa: N818 - an outcome of a record, always caught
    """A template does not fit its values; the message has place and reason, never a value."""


class _Unfolded(CodeGenerator):
    """Leaves every expression to be worked out when the template is rendered."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData | nodes.Const):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)


class _Tracking(_Unfolded, meta.TrackingCodeGenerator):
    def __init__(self) -> None:
        super().__init__(_ENVIRONMENT)
        self.optimizer = None  # which works constants out, and which Jinja always turns on here


class _RowEnvironment(ImmutableSandboxedEnvironment):
    code_generator_class = _Unfolded

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, finalize=_shown, optimized=False)
        # Chance would make another record of the same row after a crash.
        del self.globals["lipsum"]
        del self.filters["random"]

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Let a key of a structured value win over a method of its name, such as ``items``."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _shown(value: Any) -> Any:
    """Print structured values as JSON, which models read better than Python."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


_ENVIRONMENT: Final = _RowEnvironment()


class ParsedTemplate:
    """A parsed and checked template that was not run.

    Args:
        source: the template's text.

    Attributes:
        variables: names that it looks up.
        lines: the line, from 1, on which each of them is used first.
        nodes: how many parts it has.
        is_plain: whether each part of it costs no more than its values are long: constant text,
            look-ups, ``if`` and a few filters.

    Raises:
        TemplateSyntaxError: with ``lineno`` and ``message``; also for what no template may hold.
    """

    def __init__(self, source: str) -> None:
        if source.count("{{") + source.count("{%") > MOST_BLOCKS:
            _refuse(f"it holds more than {MOST_BLOCKS} expressions and blocks", 1)
        try:
            tree = _ENVIRONMENT.parse(source)
            parts = _checked_parts(tree)
            tracking = _Tracking()
            tracking.visit(tree)
        except RecursionError:
            _refuse("it is nested too deep", 1)
        except ValueError:  # what int() raises for thousands of digits
            _refuse("a number in it is too long", 1)
        self._tree = tree
        self.variables = frozenset(tracking.undeclared_identifiers)
        self.lines = _first_lines(parts, self.variables)
        self.nodes = len(parts)
        self.is_plain = self.nodes <= MOST_PLAIN_NODES and all(map(_is_plain, parts))

    def compile(self) -> Template:
        """Return the template in a form that can be rendered; does not run it.

        Raises:
            TemplateSyntaxError: it cannot be compiled.
        """
        try:
            return _ENVIRONMENT.from_string(self._tree)
        except TemplateSyntaxError:
            raise
        except (SyntaxError, RecursionError, MemoryError):  # Python's own bounds of nested code
            _refuse("it is nested too deep", 1)


def render(template: Template, field: str, values: Mapping[str, Any]) -> str:
    """Return the text for one record.

    Raises:
        TemplateFailed: with the field, the line and the kind of error.
    """
    text: list[str] = []
    length = 0
    try:
        for part in template.generate(values):
            text.append(part)
            length += len(part)
            if length > MOST_RENDERED_CHARACTERS:
                break
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - an expression can fail in any way
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == "<template>"
        ]
        where = f"{field} line {lines[-1]}" if lines else field
        # The message of the error may hold row values: only its type is kept, and no cause.
        raise TemplateFailed(f"template_error in {where}: {type(error).__name__}") from None
    if length > MOST_RENDERED_CHARACTERS:
        raise TemplateFailed(
            f"template_error in {field}: its text is longer than {MOST_RENDERED_CHARACTERS:,}"
            " characters"
        )
    whole = "".join(text)
    try:
        whole.encode()
    except UnicodeEncodeError:
        raise TemplateFailed(f"template_error in {field}: a lone surrogate in its text") from None
    return whole


def _first_lines(parts: list[nodes.Node], variables: frozenset[str]) -> Mapping[str, int]:
    lines: dict[str, int] = {}
    for part in parts:
        if isinstance(part, nodes.Name) and part.name in variables:
            lines[part.name] = min(part.lineno, lines.get(part.name, part.lineno))
    return lines


def _checked_parts(tree: nodes.Template) -> list[nodes.Node]:
    """Return every node; without recursion, as nothing bounds how deep a chain of dots goes."""
    parts: list[nodes.Node] = []
    left: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while left:
        node, depth = left.pop()
        if depth > MOST_DEPTH:
            _refuse("it is nested too deep", node.lineno)
        if isinstance(node, _LOADING):
            _refuse("no other template can be loaded here", node.lineno)
        if isinstance(node, nodes.EvalContextModifier):
            _refuse("autoescape cannot be changed here", node.lineno)
        if isinstance(node, nodes.Filter) and node.name not in _ENVIRONMENT.filters:
            _refuse(f"No filter named {node.name!r}.", node.lineno)
        if isinstance(node, nodes.Test) and node.name not in _ENVIRONMENT.tests:
            _refuse(f"No test named {node.name!r}.", node.lineno)
        parts.append(node)
        left += [(child, depth + 1) for child in node.iter_child_nodes()]
    return parts


def _is_plain(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Filter):
        return node.name in _PLAIN_FILTERS
    return isinstance(node, _PLAIN)


def _refuse(problem: str, line: int) -> NoReturn:
    raise TemplateSyntaxError(problem, line) from None
