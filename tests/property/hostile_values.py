"""Strategies of what a model, a row, a template or a schema may supply at its worst."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

NAMES = ("text", "tree", "number", "missing")
SIZES = st.sampled_from([0, 1, 2, 3, 7, 20, 100, 1_000, 99_999, 10**9])
BITS = st.sampled_from(
    [
        "",
        "a",
        "```",
        "```json\n",
        "\n",
        "\\",
        '"',
        "[",
        "{",
        "]",
        "é",
        "\u2028",
        "{{",
        "{%",
        "1",
        "-",
    ]
)


@st.composite
def long_texts(draw: st.DrawFn) -> str:
    """A few bits, each up to 50,000 times in a row."""
    parts = draw(st.lists(st.tuples(BITS, st.sampled_from([1, 2, 100, 50_000])), max_size=4))
    return "".join(bit * times for bit, times in parts)


JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**300), 10**300),
        st.floats(allow_nan=False, allow_infinity=False),
        long_texts(),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(BITS, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def nested(draw: st.DrawFn) -> Any:
    """A value under up to 120 levels of lists and objects."""
    value = draw(JSON_VALUES)
    for _ in range(draw(st.sampled_from([0, 1, 50, 120]))):
        value = [value] if draw(st.booleans()) else {"a": value}
    return value


ANSWERS = st.one_of(
    long_texts(),
    nested().map(json.dumps),
    nested().map(lambda value: f"```json\n{json.dumps(value)}\n```"),
    st.sampled_from(["1" * 100_000, "[" * 500_000, '{"a":' * 100_000, "1e99999", "NaN", "\ud800"]),
)
VALUES = st.fixed_dictionaries(
    {"text": long_texts(), "tree": nested(), "number": st.integers(-(10**300), 10**300)}
)


def _filters(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    calls = [
        "center({size})", "indent({size})", "batch({size})|list", "list", "join({other})",
        "replace({other}, {other})", "wordwrap(1)", "truncate({size})", "format({size})", "upper",
        "tojson", "tojson({size})", "sort", "unique|list", "map('upper')|list", "sum", "reverse",
        "urlize", "striptags", "xmlattr", "pprint", "int", "length", "default({other})", "trim",
        "slice({size})|list", "groupby('a')", "filesizeformat", "string", "urlencode",
    ]  # fmt: skip
    made = st.tuples(inner, st.sampled_from(calls), SIZES, inner)
    return made.map(lambda m: f"({m[0]})|{m[1].format(size=m[2], other=m[3])}")


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(
        inner, st.sampled_from(["+", "-", "*", "**", "~", "%", "//", "in", "=="]), inner
    )
    return st.one_of(
        binary.map(lambda m: f"({m[0]} {m[1]} {m[2]})"),
        _filters(inner),
        st.tuples(inner, inner).map(lambda m: f"({m[0]})[{m[1]}]"),
        st.tuples(inner, SIZES).map(lambda m: f"({m[0]}).ljust({m[1]})"),
        st.tuples(inner, SIZES).map(lambda m: f"({m[0]})[::{m[1]}]"),
        st.tuples(inner, inner, inner).map(lambda m: f"({m[0]} if {m[1]} else {m[2]})"),
        SIZES.map(lambda size: f"range({size})"),
        inner.map(lambda one: f"('%s' * 99999)|format(*[{one}] * 99999)"),
    )


EXPRESSIONS = st.recursive(
    st.one_of(
        st.sampled_from(NAMES),
        SIZES.map(str),
        st.sampled_from(["'ab'", "'%1000000000d'", "[1]", "{}", "tree.a", "tree[0]", "1.5"]),
    ),
    _combined,
    max_leaves=6,
)


def _blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(EXPRESSIONS, inner).map(lambda m: f"{{% for x in {m[0]} %}}{m[1]}{{% endfor %}}"),
        st.tuples(SIZES, inner).map(
            lambda m: f"{{% for x in range({m[0]}) %}}{m[1]}{{% endfor %}}"
        ),
        st.tuples(EXPRESSIONS, inner, inner).map(
            lambda m: f"{{% if {m[0]} %}}{m[1]}{{% else %}}{m[2]}{{% endif %}}"
        ),
        st.tuples(inner, inner).map("".join),
        st.tuples(EXPRESSIONS, inner).map(lambda m: f"{{% set text = {m[0]} %}}{m[1]}"),
    )


ENDLESS = [
    "{% macro m(a) %}{{ m(a ~ a) }}{% endmacro %}{{ m('x') }}",
    "{% set n = namespace(a='ab') %}{% for i in range(64) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
]
TEMPLATES = st.recursive(
    st.one_of(
        EXPRESSIONS.map(lambda one: f"{{{{ {one} }}}}"),
        st.sampled_from(NAMES).map(lambda name: f"{{{{ {name}|default('')|upper }}}}"),
        st.sampled_from(
            ["{{ text }}", "{{ tree }}", "{{ number }}", "a", "\n", "{{", "{% if", *ENDLESS]
        ),
    ),
    _blocks,
    max_leaves=5,
)

PATTERNS = st.sampled_from(
    [
        *("^(a+)+$", "(x+x+)+y", "(a|a)*b", "(.*)*c", r"^(\w|\s|.){0,300}$"),
        *("(?=a)", r"(a)\1", "[", "a" * 500),
    ]
)
REFERENCES = st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/$defs/none", "http://127.0.0.1:9/"])


def _subschemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "allOf": several,
            "anyOf": several,
            "oneOf": several,
            "not": inner,
            "if": inner,
            "then": inner,
            "items": inner,
            "contains": inner,
            "additionalProperties": inner,
            "unevaluatedProperties": inner,
            "propertyNames": inner,
            "properties": st.dictionaries(BITS, inner, max_size=3),
            "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
        },
    )


SUBSCHEMAS = st.recursive(
    st.one_of(
        st.booleans(),
        REFERENCES.map(lambda one: {"$ref": one}),
        PATTERNS.map(lambda one: {"pattern": one}),
        st.just({"uniqueItems": True}),
        st.just({"multipleOf": 1e-300}),
        JSON_VALUES.map(lambda one: {"const": one}),
        st.lists(JSON_VALUES, min_size=1, max_size=5).map(lambda many: {"enum": many}),
    ),
    _subschemas,
    max_leaves=8,
)


@st.composite
def schemas(draw: st.DrawFn) -> Any:
    """A schema of which two parts refer to each other, to themselves and to nothing."""
    schema = draw(SUBSCHEMAS)
    if not isinstance(schema, dict):
        return schema
    return {**schema, "$defs": {"a": draw(SUBSCHEMAS), "b": draw(SUBSCHEMAS)}}
