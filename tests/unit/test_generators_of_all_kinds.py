"""Samplers, embeddings, code of the user's, validators, and seeds of other forms.

Rules: design 05, *Generators*.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forebay.contracts.errors import ConfigurationError, RunRefused, WorkflowError
from forebay.contracts.runs import RunSpec
from forebay.contracts.workflow import RecordRange, TaskType
from forebay.coordinator.runs.scheduling import resolve_columns, resource_limits
from forebay.workers.generators.base import ChatAnswer, GenerationContext, RecordRejected
from forebay.workers.generators.registry import build_generator
from forebay.workers.generators.seed_file import SeedReader, describe_seed
from forebay.workers.runs.allowlist import Allowlist, options_for
from forebay.workers.runs.workflow_file import load_workflow

CODE = """
import asyncio
import builtins

from forebay.contracts.scheduling import SchedulingMetadata


def shout(record, models, mark="!"):
    return record["text"].upper() + mark


async def ask_twice(record, models):
    one = await models.chat("writer", [{"role": "user", "content": record["text"]}])
    two = await models.chat("writer", [{"role": "user", "content": one.text}])
    return [one.text, two.text]


def ranks(records, models):
    texts = sorted(record["text"] for record in records)
    return [texts.index(record["text"]) for record in records]


def short(records, models):
    return []


def odd(record, models):
    return {1, 2}


def surrogate(record, models):
    return "\\ud800"


def ends_by(record, models, name):
    raise getattr(builtins, name, None) or getattr(asyncio, name)


async def cancels(record, models):
    raise asyncio.CancelledError


class Batch:
    task_type = "batch"

    def generate(self, records, models):
        return [record["text"] for record in records]


def numbers(numbers, models):
    return numbers


numbers.task_type = "from_scratch"


def wrong(record, models):
    return 1


wrong.task_type = "row"


class Plugin:
    def __init__(self, prefix):
        self.prefix = prefix

    async def generate(self, record, models):
        return self.prefix + record["text"]

    def get_scheduling_metadata(self):
        return SchedulingMetadata(
            kind="custom_model", identity=("custom_model", "lab", "gpu", "1"), weight=2
        )
"""


class Models:
    """Answers calls in turn, and says what was asked."""

    def __init__(self, *answers: ChatAnswer) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    async def chat(self, alias: str, messages: Any, *, response_schema: Any = None) -> ChatAnswer:
        self.asked.append((alias, messages[-1]["content"]))
        return self.answers.pop(0)

    async def embed(self, alias: str, texts: Any) -> list[list[float]]:
        self.asked.append((alias, list(texts)))
        return [[0.5, float(len(text))] for text in texts]


def answers(*texts: str, is_cut: bool = False) -> Models:
    return Models(
        *(ChatAnswer(text=text, input_tokens=1, output_tokens=9, is_cut=is_cut) for text in texts)
    )


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed.csv").write_text("text,other\na,x\nb,y\n")
    module = f"code_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(CODE)

    def load(*columns: dict[str, Any]):
        document = {
            "name": "w",
            "output": {"path": "out.jsonl"},
            "providers": {"lab": {"base_url": "http://lab"}},
            "models": {"writer": {"provider": "lab", "model": "m", "max_parallel_requests": 4}},
            "columns": [
                {"generator": "seed", "names": ["text", "other"], "path": "seed.csv"},
                *columns,
            ],
        }
        (tmp_path / "w.yaml").write_text(json.dumps(document).replace("CODE", module))
        return load_workflow(tmp_path / "w.yaml", environ={})

    return load


async def made(workflow, models: Any = None, *, index: int = 1, **more: Any) -> Any:
    generator = build_generator(workflow.columns[index], workflow)
    inputs = {"text": "a", "other": "x", **more}
    outputs = await generator.generate(inputs, GenerationContext(models=models or Models()))
    return outputs[workflow.columns[index].outputs[0]]


def mistakes(load, *columns: dict[str, Any]) -> str:
    with pytest.raises(WorkflowError) as caught:
        load(*columns)
    return str(caught.value)


# --- samplers


@pytest.mark.parametrize(
    ("terms", "fits"),
    [
        ({"kind": "category", "values": ["a", 1, True]}, lambda one: one in ("a", 1, True)),
        ({"kind": "category", "values": ["a", "b"], "weights": [0, 1]}, lambda one: one == "b"),
        ({"kind": "uniform", "low": 2.0, "high": 3.0}, lambda one: 2 <= one <= 3),
        ({"kind": "integer", "low": 1, "high": 6}, lambda one: one in range(1, 7)),
        ({"kind": "normal", "mean": 0.0, "stddev": 1.0}, lambda one: isinstance(one, float)),
        (
            {"kind": "date", "start": "2024-02-28", "end": "2024-03-01"},
            lambda one: one in {"2024-02-28", "2024-02-29", "2024-03-01"},
        ),
        ({"kind": "uuid"}, lambda one: len(one) == 36 and one[14] == "4"),
    ],
)
async def test_a_sampler_draws_the_same_for_a_record_in_any_row_group(load, terms, fits) -> None:
    workflow = load({"generator": "sampler", "name": "s", **terms})
    assert workflow.columns[1].task_type is TaskType.FROM_SCRATCH
    sampler = build_generator(workflow.columns[1], workflow)
    context = GenerationContext(models=Models())
    whole = await sampler.generate(RecordRange(start=0, count=40), context)
    parts = [await sampler.generate(RecordRange(start=n, count=10), context) for n in (30, 20)]
    assert whole[30:] + whole[20:30] == parts[0] + parts[1]
    assert all(fits(row["s"]) for row in whole)
    if terms["kind"] not in {"category", "date"}:
        assert len({str(row["s"]) for row in whole}) > 3
    other = build_generator(
        load({"generator": "sampler", "name": "s", "seed": 7, **terms}).columns[1], workflow
    )
    if "weights" not in terms:
        assert await other.generate(RecordRange(start=0, count=40), context) != whole


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"kind": "uniform", "low": 1.0}, "kind 'uniform' needs high; add it"),
        ({"kind": "uuid", "mean": 1.0}, "kind 'uuid' has no mean; take it out"),
        ({"kind": "integer", "low": 3, "high": 1}, "low is above high"),
        ({"kind": "category", "values": ["a"], "weights": [1, 2]}, "weights has another length"),
    ],
)
def test_a_sampler_that_cannot_draw_is_refused(load, terms, said: str) -> None:
    assert said in mistakes(load, {"generator": "sampler", "name": "s", **terms})


# --- embeddings and cut answers


async def test_an_embedding_is_a_list_of_numbers_of_the_rendered_text(load) -> None:
    column = {
        "generator": "embedding",
        "name": "v",
        "model": "writer",
        "text": "{{ text }}{{ other }}",
    }
    models = Models()
    assert await made(load(column), models) == [0.5, 2.0]
    assert models.asked == [("writer", ["ax"])]


async def test_a_text_that_its_bound_cut_drops_its_record_or_is_kept_as_asked(load) -> None:
    with pytest.raises(RecordRejected) as refused:
        await made(load(TEXT), answers("half a", is_cut=True))
    assert refused.value.reason.startswith("answer_cut: the answer of model 'writer' was ended by")
    assert refused.value.reason.endswith("raise max_tokens of the model, or say on_cut = 'keep'")
    kept = TEXT | {"on_cut": "keep"}
    assert await made(load(kept), answers("half a", is_cut=True)) == "half a"


async def test_an_answer_that_its_bound_cut_is_not_repaired_under_the_same_bound(load) -> None:
    column = {
        "generator": "llm_structured",
        "name": "j",
        "model": "writer",
        "prompt": "{{ text }}",
        "schema": {"type": "object"},
    }
    models = answers('{"a": "b', "{}", is_cut=True)
    with pytest.raises(RecordRejected, match=r"answer_cut: .* 'writer' .* raise max_tokens"):
        await made(load(column), models)
    assert len(models.asked) == 1
    assert await made(load(column), answers("{}", is_cut=True)) == {}


# --- code of the user's


async def test_code_makes_a_column_with_no_call_of_a_model_or_several(load) -> None:
    plain = {"generator": "python", "name": "p", "needs": ["text"]}
    assert await made(load(plain | {"function": "CODE:shout"})) == "A!"
    with_mark = plain | {"function": "CODE:shout", "params": {"mark": "?"}}
    assert await made(load(with_mark)) == "A?"
    asking = plain | {"function": "CODE:ask_twice", "models": ["writer"]}
    models = answers("one", "two")
    assert await made(load(asking), models) == ["one", "two"]
    assert models.asked == [("writer", "a"), ("writer", "one")]
    with pytest.raises(
        ConfigurationError, match="calls model 'writer', expected one of its models"
    ):
        await made(load(plain | {"function": "CODE:ask_twice"}), answers("one"))
    with pytest.raises(RecordRejected, match=r"not_json: .*:odd returned a set"):
        await made(load(plain | {"function": "CODE:odd"}))


async def test_no_value_and_no_exception_of_code_leaves_its_record_unfinished(load) -> None:
    plain = {"generator": "python", "name": "p", "needs": ["text"]}
    with pytest.raises(RecordRejected, match=r"invalid_text: .*:surrogate returned text"):
        await made(load(plain | {"function": "CODE:surrogate"}))
    for name in ("SystemExit", "KeyboardInterrupt", "CancelledError", "StopIteration"):
        ends = load(plain | {"function": "CODE:ends_by", "params": {"name": name}})
        with pytest.raises(WorkflowError, match=f":ends_by raised {name}, expected a value"):
            await asyncio.wait_for(made(ends), 10)
    with pytest.raises(WorkflowError, match=r":cancels raised CancelledError, expected a value"):
        await made(load(plain | {"function": "CODE:cancels"}))


async def test_code_makes_a_column_of_a_row_group_with_one_call(load) -> None:
    column = {"generator": "python", "name": "p", "needs": ["text"], "batch": True}
    workflow = load(column | {"function": "CODE:ranks"})
    assert workflow.columns[1].task_type is TaskType.BATCH
    generator = build_generator(workflow.columns[1], workflow)
    context = GenerationContext(models=answers())
    rows = [{"text": "c"}, {"text": "a"}, {"text": "b"}]
    assert await generator.generate_batch(rows, context) == [{"p": 2}, {"p": 0}, {"p": 1}]
    wrong = load(column | {"function": "CODE:short"})
    generator = build_generator(wrong.columns[1], wrong)
    with pytest.raises(RecordRejected, match=r"wrong_batch: .* 0 values, expected .* 3 records"):
        await generator.generate_batch(rows, context)


async def test_a_plugin_declares_its_resource_and_may_be_exclusive(
    load,
) -> None:
    column = {
        "generator": "python",
        "name": "p",
        "needs": ["text"],
        "function": "CODE:Plugin",
        "params": {"prefix": "> "},
        "exclusive": True,
    }
    workflow = load(column)
    assert await made(workflow) == "> a"
    run = RunSpec(run_id="r", tenant="t", workflow=workflow)
    scheduling = resolve_columns(run, build_generator)[1]
    assert scheduling.group.key.identity[:3] == ("lab", "gpu", "1")
    exclusive = f"exclusive:{workflow.columns[1].spec.function}"
    assert scheduling.resource_request.amounts == {"submission": 1, exclusive: 1}
    assert resource_limits(run)[exclusive] == 1


def test_a_worker_runs_no_code_that_it_was_not_started_with(load, tmp_path: Path) -> None:
    workflow = load({"generator": "python", "name": "p", "function": "CODE:shout"})
    module = workflow.columns[1].spec.function.partition(":")[0]
    assert options_for(workflow)[-2:] == ["--allow-code", module]
    allowed = {"paths": [tmp_path], "hosts": ["lab"]}
    Allowlist.of(**allowed, code=[module]).check(workflow, "w")
    for code in ([], [module[:-1]], [f"{module}.more"]):
        with pytest.raises(RunRefused, match=f"run the code {module}; start it with --allow-code"):
            Allowlist.of(**allowed, code=code).check(workflow, "w")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("CODE:nothing", "cannot be imported (AttributeError"),
        ("no_such_module_here:f", "cannot be imported (ModuleNotFoundError"),
        ("CODE:CODE_is_no_name", "cannot be imported"),
        ("not-a-name:f", "expected module:name"),
        ("not-a-name", "no plugin 'not-a-name' is installed, expected an entry point in"),
        ("CODE:wrong", "is 'row', expected one of from_scratch, cell, batch; correct the code"),
        ("no_such_plugin", "no plugin 'no_such_plugin' is installed"),
    ],
)
def test_code_that_is_not_there_is_refused_before_anything_runs(load, function, said) -> None:
    assert said in mistakes(load, {"generator": "python", "name": "p", "function": function})


def test_a_module_that_exits_when_it_is_imported_is_named(load, tmp_path: Path) -> None:
    (tmp_path / "script_that_exits.py").write_text("raise SystemExit(4)")
    told = mistakes(
        load, {"generator": "python", "name": "p", "function": "script_that_exits:main"}
    )
    assert "script_that_exits:main cannot be imported (SystemExit: 4)" in told


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"function": "CODE:numbers", "needs": ["text"]}, "from scratch, expected no needs"),
        ({"function": "CODE:numbers", "batch": True}, "'from_scratch', expected 'batch' as here"),
        ({"function": "CODE:Batch", "skip_when": "text"}, "makes a whole row group, expected code"),
    ],
)
def test_what_the_file_says_must_fit_what_the_code_says_of_itself(load, column, said) -> None:
    assert said in mistakes(load, {"generator": "python", "name": "p"} | column)


@pytest.mark.parametrize("function", ["CODE:Batch", "CODE:numbers"])
def test_a_column_of_a_row_group_at_a_time_is_not_made_again_for_one_record(load, function) -> None:
    column = {"generator": "python", "name": "t", "function": function}
    told = "'t' is made a row group at a time, so that no record's is made again"
    assert told in mistakes(load, column, validator(on_invalid="retry"))
    assert load(column, validator(on_invalid="drop")).columns[1].task_type is not TaskType.CELL


def test_either_a_seed_or_a_number_says_how_many_records_there_are(load, tmp_path: Path) -> None:
    load()
    text = (tmp_path / "w.yaml").read_text()
    for changed, told in (
        ({"records": 3}, "columns[0] is a seed, whose file says how many records there are"),
        ({"columns": [TEXT | {"prompt": "hello"}]}, "nothing says how many records there are"),
    ):
        (tmp_path / "x.yaml").write_text(json.dumps(json.loads(text) | changed))
        with pytest.raises(WorkflowError) as caught:
            load_workflow(tmp_path / "x.yaml", environ={})
        assert told in str(caught.value)
    document = json.loads(text) | {"records": 3, "columns": [TEXT | {"prompt": "hello"}]}
    (tmp_path / "x.yaml").write_text(json.dumps(document))
    workflow = load_workflow(tmp_path / "x.yaml", environ={})
    assert (workflow.record_count, workflow.seed) == (3, None)
    assert "--allow-path" not in options_for(workflow)
    Allowlist.of(hosts=["lab"]).check(workflow, "w")


# --- validators

TEXT = {"generator": "llm_text", "name": "t", "model": "writer", "prompt": "{{ text }}"}


def validator(**terms: Any) -> dict[str, Any]:
    return {
        "generator": "validator",
        "name": "ok",
        "checks": "t",
        "expression": "t != 'bad'",
    } | terms


async def test_a_validator_marks_or_drops_what_it_refuses(load) -> None:
    assert await made(load(TEXT, validator()), index=2, t="good") is True
    assert await made(load(TEXT, validator()), index=2, t="bad") is False
    with pytest.raises(RecordRejected, match="invalid: t is refused by ok"):
        await made(load(TEXT, validator(on_invalid="drop")), index=2, t="bad")


async def test_a_validator_has_a_column_made_again_before_anybody_uses_it(load) -> None:
    workflow = load(TEXT, validator(on_invalid="retry", tries=3))
    models = answers("bad", "bad", "good")
    assert await made(workflow, models) == "good"
    with pytest.raises(RecordRejected, match="invalid: t is refused by ok, 3 tries"):
        await made(workflow, answers("bad", "bad", "bad", "good"))


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"checks": "tt"}, "checks (column 'ok'): no column makes 'tt'; did you mean 'text'?"),
        (
            {"on_invalid": "retry", "expression": "other and t"},
            "it reads 'other', which 't' is made without",
        ),
        ({"on_invalid": "retry", "checks": "text"}, "'text' is the same each time it is made"),
        ({"expression": "t ==="}, "expression (column 'ok'): template line 1: "),
    ],
)
def test_a_validator_that_cannot_judge_is_refused(load, terms, said: str) -> None:
    assert said in mistakes(load, TEXT, validator(**terms))


# --- seeds


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
def test_the_delimiter_of_a_csv_is_found_by_the_names_or_named(tmp_path: Path, delimiter) -> None:
    path = tmp_path / "s.csv"
    path.write_text(f"id{delimiter}text\n1{delimiter}a\n2{delimiter}b\n")
    for named in (None, delimiter):
        seed = describe_seed(path, ["id", "text"], named)
        reader = SeedReader(seed, ["id", "text"], named)
        assert reader.read_records(RecordRange(start=1, count=1)) == [{"id": "2", "text": "b"}]
    with pytest.raises(WorkflowError, match="the header has no column 'id'"):
        describe_seed(path, ["id", "text"], "#")


def test_a_parquet_seed_is_read_by_row_group_as_json_has_it(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    days = pa.array([18_000 + n for n in range(10)], pa.date32())
    table = pa.table({"id": list(range(10)), "day": days, "more": [[1.5, None]] * 10})
    pq.write_table(table, path, row_group_size=4)
    seed = describe_seed(path, ["id", "day"])
    assert seed.records == 10
    reader = SeedReader(seed, ["id", "day", "more"])
    rows = reader.read_records(RecordRange(start=3, count=6))
    assert [row["id"] for row in rows] == [3, 4, 5, 6, 7, 8]
    assert rows[0] == {"id": 3, "day": "2019-04-17", "more": [1.5, None]}
    with pytest.raises(WorkflowError, match="has no column 'dai'; did you mean 'day'"):
        describe_seed(path, ["dai"])
    pq.write_table(table.slice(1), path)
    with pytest.raises(WorkflowError, match="is not the one that the run was submitted with"):
        SeedReader(seed, ["id"]).read_records(RecordRange(start=0, count=1))
    path.write_bytes(b"PAR1 no")
    with pytest.raises(WorkflowError, match="is no Parquet file"):
        describe_seed(path, ["id"])
