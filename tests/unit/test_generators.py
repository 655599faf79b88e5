from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from forebay.contracts.errors import SchedulingMetadataError
from forebay.contracts.identity import TaskGroupKind
from forebay.contracts.scheduling import SchedulingMetadata
from forebay.contracts.workflow import RecordRange, Workflow
from forebay.workers.generators.base import (
    ChatAnswer,
    GenerationContext,
    RecordGenerator,
    RecordRejected,
    RowGroupGenerator,
)
from forebay.workers.generators.registry import build_generator
from forebay.workers.runs.workflow_file import load_workflow

SECRET = "hunter2"
SCHEMA = {
    "type": "object",
    "required": ["urgency"],
    "properties": {"urgency": {"enum": ["low", "high"]}, "tags": {"items": {"type": "string"}}},
    "additionalProperties": {"type": "integer"},
}


class ScriptedModels:
    """Answers with what it was given, in order, and keeps what it was asked."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, list[dict[str, str]], Mapping[str, Any] | None]] = []

    async def chat(
        self,
        alias: str,
        messages: list[dict[str, str]],
        *,
        response_schema: Mapping[str, Any] | None = None,
    ) -> ChatAnswer:
        self.asked.append((alias, messages, response_schema))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return ChatAnswer(text=answer, input_tokens=1, output_tokens=1)


@pytest.fixture
def load(tmp_path):
    def load(*columns: dict[str, Any], seed: str = "text\nhello\n") -> Workflow:
        (tmp_path / "seed.csv").write_text(seed)
        model = {"provider": "lab", "model": "large", "max_parallel_requests": 8}
        document = {
            "name": "w",
            "output": {"path": str(tmp_path / "out.jsonl")},
            "providers": {"lab": {"base_url": "http://lab"}},
            "models": {"writer": model, "judge": {**model, "max_parallel_requests": 3}},
            "columns": [{"generator": "seed", "names": ["text"], "path": "seed.csv"}, *columns],
        }
        # YAML is a superset of JSON.
        (tmp_path / "w.yaml").write_text(json.dumps(document))
        return load_workflow(tmp_path / "w.yaml", environ={})

    return load


def cell(load, **column: Any) -> RecordGenerator:
    workflow = load({"name": "out", **column})
    generator = build_generator(workflow.columns[-1], workflow)
    assert isinstance(generator, RecordGenerator)
    return generator


def expression(load, template: str) -> RecordGenerator:
    return cell(load, generator="expression", template=template)


def structured(load, **more: Any) -> RecordGenerator:
    column = {"model": "judge", "prompt": "{{ text }}", "schema": SCHEMA, **more}
    return cell(load, generator="llm_structured", **column)


async def made(generator: RecordGenerator, text: Any, *answers: str | Exception) -> Any:
    context = GenerationContext(models=ScriptedModels(*answers))
    outputs = await generator.generate({"text": text}, context)
    assert list(outputs) == ["out"]
    return outputs["out"]


async def reason(generator: RecordGenerator, text: Any, *answers: str | Exception) -> str:
    with pytest.raises(RecordRejected) as caught:
        await made(generator, text, *answers)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value.reason


# --- seed


async def test_seed_makes_the_records_of_a_row_group_in_order(load):
    workflow = load(seed='text\na\n"b\n2"\n{{ c }}\n')
    generator = build_generator(workflow.columns[0], workflow)
    assert isinstance(generator, RowGroupGenerator)
    context = GenerationContext(models=ScriptedModels())
    assert await generator.generate(RecordRange(start=1, count=2), context) == [
        {"text": "b\n2"},
        {"text": "{{ c }}"},
    ]


# --- expression


async def test_expression_is_the_text_without_white_space_at_its_end(load):
    assert await made(expression(load, " <{{ text }}>\n \n"), "a") == " <a>"


@pytest.mark.parametrize("value", ["{{ first_name }}", "{% raw %}", "{{ 7 * 7 }}", "<b>&"])
async def test_row_values_are_never_templates(load, value):
    assert await made(expression(load, "{{ text }}"), value) == value


async def test_structured_values_are_shown_as_json(load):
    value = {"é": [True, None]}
    assert await made(expression(load, "{{ text }}"), value) == '{"é": [true, null]}'


async def test_a_property_named_like_a_method_is_the_property(load):
    assert await made(expression(load, "{{ text.items }}"), {"items": 3}) == "3"


@pytest.mark.parametrize(
    ("template", "value", "expected"),
    [
        ("a\n{{ text.nope }}", {"b": SECRET}, "template_error in template line 2: UndefinedError"),
        ("{{ text + 1 }}", SECRET, "template_error in template line 1: TypeError"),
        ("{{ text['__class__'].mro() }}", SECRET, "line 1: SecurityError"),
        ("{{ text.append(1) }}", [SECRET], "line 1: SecurityError"),
        ("{% for x in range(text) %}{% endfor %}", 10**9, "line 1: OverflowError"),
        ("{{ {}[text] }}", SECRET, "UndefinedError"),
    ],
)
async def test_a_record_that_its_template_does_not_fit_is_rejected_without_its_values(
    load, template, value, expected
):
    assert (await reason(expression(load, template), value)).endswith(expected)


# --- llm_text


async def test_llm_text_asks_its_alias_with_system_and_prompt(load):
    generator = cell(
        load, generator="llm_text", model="writer", system="Be {{ text }}", prompt="<{{ text }}>"
    )
    models = ScriptedModels("an answer\n")
    outputs = await generator.generate({"text": "{{ x }}"}, GenerationContext(models=models))
    assert outputs == {"out": "an answer\n"}
    assert models.asked == [
        (
            "writer",
            [
                {"role": "system", "content": "Be {{ x }}"},
                {"role": "user", "content": "<{{ x }}>"},
            ],
            None,
        )
    ]


async def test_llm_text_without_system_sends_none(load):
    generator = cell(load, generator="llm_text", model="writer", prompt="p")
    models = ScriptedModels("a")
    await generator.generate({"text": ""}, GenerationContext(models=models))
    assert models.asked[0][1] == [{"role": "user", "content": "p"}]


async def test_text_that_cannot_be_stored_is_rejected(load):
    generator = cell(load, generator="llm_text", model="writer", prompt="p")
    assert await reason(generator, "", f"{SECRET}\ud800") == (
        "invalid_text: the answer holds a lone surrogate"
    )


# --- llm_structured


async def test_llm_structured_sends_its_schema_and_returns_the_value(load):
    generator = structured(load)
    models = ScriptedModels('{"urgency": "low"}')
    outputs = await generator.generate({"text": "t"}, GenerationContext(models=models))
    assert outputs == {"out": {"urgency": "low"}}
    assert models.asked == [("judge", [{"role": "user", "content": "t"}], SCHEMA)]


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}\n```\n", "\n```json\n{}\n  ```"])
async def test_json_between_code_fences_is_json(load, fence):
    assert await made(structured(load), "", fence.format('{"urgency": "low"}')) == {
        "urgency": "low"
    }


async def test_a_refused_answer_is_asked_for_again_with_what_was_wrong(load):
    generator = structured(load)
    models = ScriptedModels("no", '{"urgency": "mid"}', '{"urgency": "high"}')
    outputs = await generator.generate({"text": "t"}, GenerationContext(models=models))
    assert outputs == {"out": {"urgency": "high"}}
    first, second, third = (messages for _, messages, _ in models.asked)
    assert len(first) == 1
    assert second[:2] == [*first, {"role": "assistant", "content": "no"}]
    assert "not JSON at line 1 column 1" in second[2]["content"]
    assert third[:2] == [*first, {"role": "assistant", "content": '{"urgency": "mid"}'}]
    assert 'at $.urgency: "mid" is not one of "low" or "high"' in third[2]["content"]
    assert json.dumps(SCHEMA) in third[2]["content"]


async def test_an_empty_answer_is_complained_about_without_an_empty_message(load):
    generator = structured(load)
    models = ScriptedModels("", '{"urgency": "high"}')
    await generator.generate({"text": "t"}, GenerationContext(models=models))
    assert all(message["content"] for message in models.asked[1][1])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (f'{{"urgency": "{SECRET}"}}', "at $.urgency: expected one of the enum"),
        (f'{{"{SECRET}": 1}}', "at $: expected the property 'urgency'"),
        (f'{{"urgency": "low", "{SECRET}": "x"}}', "at $.*: expected type integer"),
        ('{"urgency": "low", "tags": ["a", 2]}', "at $.tags[1]: expected type string"),
        (SECRET, "not JSON at line 1 column 1: Expecting value"),
        ('{"urgency": NaN}', "a number is not finite"),
        ('{"urgency": "\\ud800"}', "a text holds a lone surrogate"),
        ("[" * 200_000, "nested too deep"),
    ],
)
async def test_after_its_repairs_the_record_is_rejected_without_its_values(load, answer, expected):
    assert await reason(structured(load), SECRET, answer, answer, answer) == (
        f"invalid_json after 3 attempts: {expected}"
    )


async def test_without_repairs_one_answer_decides(load):
    generator = structured(load, repair_attempts=0)
    assert await reason(generator, "", "no") == (
        "invalid_json after 1 attempts: not JSON at line 1 column 1: Expecting value"
    )


async def test_an_answer_deeper_than_a_recursive_schema_can_follow_is_rejected(load):
    schema = {"$ref": "#/$defs/tree", "$defs": {"tree": {"items": {"$ref": "#/$defs/tree"}}}}
    generator = structured(load, schema=schema, repair_attempts=0)
    assert await made(generator, "", "[[]]") == [[]]
    deep = "[" * 900 + "]" * 900
    assert (await reason(generator, "", deep)).endswith("nested too deep")


async def test_a_schema_that_refers_to_itself_alone_accepts_everything(load):
    generator = structured(load, schema={"$ref": "#"}, repair_attempts=0)
    assert await made(generator, "", "1") == 1


@pytest.mark.parametrize("kind", ["llm_text", "llm_structured"])
async def test_errors_of_the_caller_pass_unchanged(load, kind):
    more = {"schema": SCHEMA} if kind == "llm_structured" else {}
    generator = cell(load, generator=kind, model="writer", prompt="p", **more)
    error = TimeoutError("later")
    with pytest.raises(TimeoutError) as caught:
        await made(generator, "", error)
    assert caught.value is error


def test_a_reason_is_bounded():
    assert len(RecordRejected("x" * 5000).reason) == 200


# --- scheduling metadata


def test_every_alias_of_an_endpoint_declares_the_same_and_the_smallest_cap(load):
    text = {"generator": "llm_text", "model": "writer", "prompt": "p"}
    judged = {"generator": "llm_structured", "model": "judge", "prompt": "p", "schema": SCHEMA}
    workflow = load({"name": "a", **text}, {"name": "b", **judged})
    again = Workflow.model_validate_json(workflow.model_dump_json())
    declared = [
        build_generator(column, source).get_scheduling_metadata()
        for source in (workflow, again)
        for column in source.columns[1:]
    ]
    assert declared == 4 * [
        SchedulingMetadata(
            kind=TaskGroupKind.MODEL, identity=("model", "lab", "large", "chat"), weight=3
        )
    ]


def test_a_generator_that_says_nothing_is_local(load):
    workflow = load()
    declared = build_generator(workflow.columns[0], workflow).get_scheduling_metadata()
    assert declared == SchedulingMetadata(
        kind=TaskGroupKind.LOCAL, identity=("local", "default"), weight=1
    )
    assert expression(load, "").get_scheduling_metadata() == declared


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"kind": "gpu"}, "unknown_kind"),
        ({"kind": "model"}, "bad_identity"),
        ({"identity": ("local",)}, "bad_identity"),
        ({"identity": ["local", "x"]}, "bad_identity"),
        ({"identity": ("local", "")}, "bad_identity"),
        ({"identity": ("model", "x")}, "bad_identity"),
        ({"weight": 0}, "bad_weight"),
        ({"weight": True}, "bad_weight"),
        ({"weight": 1.5}, "bad_weight"),
    ],
)
def test_wrong_metadata_is_refused_with_its_code(wrong, code):
    with pytest.raises(SchedulingMetadataError) as caught:
        SchedulingMetadata(**wrong)
    assert caught.value.code == code
    assert caught.value.fallback is None


def test_a_kind_may_be_a_plain_word():
    identity = ("custom_model", "acme", "ranker", "2")
    metadata = SchedulingMetadata(kind="custom_model", identity=identity)  # type: ignore[arg-type]
    assert metadata.kind is TaskGroupKind.CUSTOM_MODEL
