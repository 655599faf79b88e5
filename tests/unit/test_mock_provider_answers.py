from __future__ import annotations

import json
import math

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.mock_provider.answers import answer_chat, embed, split_text
from forebay.mock_provider.draws import digest_of, stream_of
from forebay.mock_provider.instance import SchemaNotSupportedError, make_instance
from forebay.mock_provider.wire import ChatRequest, EmbeddingRequest, count_tokens

WORDS = ("alpha", "beta", "gamma")


def chat(content="Tell me about rivers and turbines", model="m", **fields):
    messages = [{"role": "user", "content": content}]
    return ChatRequest.model_validate({"model": model, "messages": messages, **fields})


def answer(request, *, seed=0, invalid_json_rate=0.0):
    return answer_chat(request, seed=seed, invalid_json_rate=invalid_json_rate)


def structured(schema):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def test_the_same_seed_model_and_messages_have_the_same_answer():
    assert answer(chat()) == answer(chat(temperature=1.0, stream=True))
    others = [answer(chat(), seed=1), answer(chat("other words")), answer(chat(model="n"))]
    assert len({answer(chat()).digest, *(other.digest for other in others)}) == 4


def test_this_answer_stays_the_same_in_every_version_of_python():
    assert answer(chat("water flows downhill")).text == (
        "In short, water and flows matter more than downhill, at least until the water changes."
    )


def test_texts_are_made_of_the_words_of_the_prompt():
    text = answer(chat("zebra zeppelin zirconium")).text
    assert {"zebra", "zeppelin", "zirconium"} & set(text.lower().replace(".", " ").split())


@pytest.mark.parametrize("content", ["", None, "42 ?!", [{"type": "image_url", "image_url": {}}]])
def test_a_prompt_without_words_is_answered_too(content):
    assert answer(chat(content)).text


def test_text_parts_count_and_images_change_the_answer():
    parts = [{"type": "text", "text": "abcd"}, {"type": "image_url", "image_url": {"url": "1"}}]
    other = [parts[0], {"type": "image_url", "image_url": {"url": "2"}}]
    assert answer(chat(parts)).prompt_tokens == 1
    assert answer(chat(parts)).digest != answer(chat(other)).digest


def test_a_token_bound_cuts_the_answer_and_says_so():
    whole, cut = answer(chat()), answer(chat(max_tokens=3))
    assert cut.text == whole.text[:12]
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 3)
    assert answer(chat(max_completion_tokens=10_000)).finish_reason == "stop"


def test_usage_counts_a_quarter_of_the_characters_rounded_up():
    assert [count_tokens("x" * n) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    made = answer(chat("x" * 41))
    assert made.prompt_tokens == 11
    assert made.completion_tokens == math.ceil(len(made.text) / 4)


def test_a_json_object_is_answered_with_one():
    assert isinstance(json.loads(answer(chat(response_format={"type": "json_object"})).text), dict)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
        {"type": "integer"},
        {"type": "null"},
        {"type": "string"},
    ],
)
def test_broken_json_is_broken_whatever_the_schema(schema):
    for number in range(20):
        request = chat(f"question {number}", response_format=structured(schema))
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer(request, invalid_json_rate=1.0).text)


def test_a_share_of_the_structured_answers_is_broken_and_always_the_same_ones():
    def broken():
        found = set()
        for number in range(200):
            request = chat(f"q {number}", response_format=structured({"type": "object"}))
            try:
                json.loads(answer(request, invalid_json_rate=0.25).text)
            except json.JSONDecodeError:
                found.add(number)
        return found

    assert 25 < len(broken()) < 75
    assert broken() == broken()


def bounded(kind):
    keys = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"]
    low = st.integers(-50, 50)
    return st.tuples(
        low, st.integers(2, 60), st.sampled_from(keys[:2]), st.sampled_from(keys[2:])
    ).map(lambda t: {"type": kind, t[2]: t[0], t[3]: t[0] + t[1]})


SCALARS = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({}),
    bounded("integer"),
    bounded("number"),
    st.integers(0, 30).map(lambda n: {"type": "string", "minLength": n, "maxLength": n + 3}),
    st.just({"type": ["string", "null"]}),
    st.just({"type": "integer", "multipleOf": 7}),
    st.lists(st.integers() | st.text() | st.none(), min_size=1).map(lambda v: {"enum": v}),
    st.integers().map(lambda v: {"const": v}),
    st.sampled_from(["date", "date-time", "email", "uuid", "ipv4", "uri"]).map(
        lambda name: {"type": "string", "format": name}
    ),
)


def nested(inner):
    name = st.sampled_from(["a", "b", "c", "d"])
    return st.one_of(
        st.tuples(inner, st.integers(0, 3)).map(
            lambda t: {"type": "array", "items": t[0], "minItems": t[1], "maxItems": t[1] + 2}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
        st.dictionaries(name, inner).flatmap(
            lambda properties: st.builds(
                lambda required, other: {
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": other,
                },
                st.lists(st.sampled_from(sorted(properties)), unique=True)
                if properties
                else st.just([]),
                st.booleans() | inner,
            )
        ),
    )


@settings(max_examples=150, deadline=None)
@given(st.recursive(SCALARS, nested, max_leaves=8), st.integers(0, 100))
def test_an_instance_satisfies_its_schema(schema, seed):
    instance = make_instance(schema, stream_of(seed), WORDS)
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    validator.validate(json.loads(json.dumps(instance)))


TREE = {
    "$ref": "#/$defs/Node",
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "left": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["name", "left", "children"],
            "additionalProperties": False,
        }
    },
}


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"a": {"minimum": 500, "maximum": 510}, "b": {"const": 1}}},
            ],
            "required": ["b"],
        },
        {
            "oneOf": [
                {"properties": {"kind": {"const": k}}, "required": ["kind"]} for k in ("x", "y")
            ],
            "type": "object",
        },
        {"type": "array", "prefixItems": [{"type": "integer"}, {"const": "b"}], "items": False},
        {"type": "array", "items": {"enum": [1, 2, 3, 4]}, "uniqueItems": True, "minItems": 4},
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 3},
        {"type": "object", "minProperties": 2, "properties": {"a": {"type": "null"}}},
        {"type": "object", "maxProperties": 1, "properties": {"a": {}, "b": {}}, "required": ["b"]},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
        {"type": "number", "minimum": 0.3, "maximum": 0.3},
        {"type": "integer", "minimum": 2**62, "maximum": 2**62 + 3},
        {"minimum": -5, "maximum": -4},
        True,
    ],
)
def test_what_pydantic_and_hands_write_is_satisfied(schema):
    for seed in range(25):
        instance = make_instance(schema, stream_of(seed), WORDS)
        jsonschema_rs.Draft202012Validator(schema).validate(instance)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string", "pattern": "^a+$"}, "'pattern'"),
        ({"not": {"type": "string"}}, "'not'"),
        ({"type": "thing"}, "type 'thing'"),
        ({"type": "string", "format": "cusip"}, "format 'cusip'"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "between 5 and 4"),
        ({"type": "number", "minimum": 5, "exclusiveMaximum": 5}, "between 5 and 5"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems 3"),
        ({"type": "array", "minItems": 10**9}, "minItems"),
        ({"type": "array", "items": {"const": 1}, "uniqueItems": True, "minItems": 2}, "different"),
        ({"type": "string", "minLength": 10**9}, "minLength"),
        ({"type": "string", "minLength": "x"}, "not a JSON Schema"),
        ({"enum": []}, "enum"),
        ({"$ref": "#/$defs/gone"}, "leads nowhere"),
        ({"$ref": "https://example.com/x"}, "begins with #"),
        ({"allOf": [{"minimum": 1}, {"minimum": 2}]}, "two different 'minimum'"),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "without an end"),
        ({"$ref": "#"}, "without an end"),
        (
            {
                "type": "array",
                "minItems": 1000,
                "items": {"type": "array", "minItems": 1000, "items": {"type": "null"}},
            },
            "over 20000 values",
        ),
    ],
)
def test_a_schema_that_cannot_be_satisfied_is_refused_by_name(schema, said):
    with pytest.raises(SchemaNotSupportedError, match=r".") as caught:
        make_instance(schema, stream_of(0), WORDS)
    assert said in str(caught.value)


@given(st.text(), st.integers(1, 40))
def test_a_split_text_joins_to_itself(text, count):
    pieces = split_text(text, count)
    assert "".join(pieces) == text
    assert len(pieces) <= count
    assert all(pieces) or text == ""


def test_a_digest_does_not_confuse_where_one_part_ends():
    assert digest_of("ab", "c") != digest_of("a", "bc")


def test_an_input_has_the_same_unit_vector_in_every_batch():
    def vectors(value, **fields):
        request = EmbeddingRequest.model_validate({"model": "e", "input": value, **fields})
        return embed(request, seed=0, dimensions=16)

    (alone,) = vectors("river")
    assert vectors(["sea", "river"])[1] == alone
    assert vectors(["sea", "river"])[0] != alone
    assert math.hypot(*alone) == pytest.approx(1)
    assert len(alone) == 16
    assert len(vectors("river", dimensions=3)[0]) == 3
    assert len(vectors([1, 2, 3])) == 1
    assert len(vectors([[1], [2, 3]])) == 2
