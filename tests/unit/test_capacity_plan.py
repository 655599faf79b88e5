"""The capacity plan: sources, their precedence, and why a value is not known.

Rules: design 02, *Capacity plan*.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from forebay.contracts.capacity import (
    CapacitySource,
    CapacityValue,
    first_of,
    known,
    lowered,
    missing,
)
from forebay.contracts.identity import ProviderModelKey, RequestDomain
from forebay.contracts.snapshots import GlobalSnapshot
from forebay.workers.generators.base import ChatAnswer
from forebay.workers.runs.capacity_plan import capacity_plan
from forebay.workers.runs.expectations import expect
from forebay.workers.runs.preview import PreviewedCall, PreviewedCell
from forebay.workers.runs.workflow_file import load_workflow

TEXT = """
name = "letters"
output.path = "out.jsonl"
buffer_size = 7
providers.local.base_url = "http://localhost:1/v1"
[models.writer]
provider = "Local"
model = "large"
max_parallel_requests = 8
initial_limit = 3
input_price = 1.0
output_price = 2.0
quotas = {tokens_per_minute = 900}
[models.judge]
provider = "Local"
model = "large"
max_parallel_requests = 5
[[columns]]
generator = "seed"
names = ["id"]
path = "seed.csv"
[[columns]]
generator = "llm_text"
name = "summary"
model = "judge"
prompt = "{{ id }}"
"""
RUN, DEFAULT = CapacitySource.RUN_CONFIG, CapacitySource.DEFAULT
SERVER = CapacitySource.RUNTIME_SNAPSHOT
KEY = ProviderModelKey(provider_name="local", model_id="large")


@pytest.fixture
def workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("seed.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(100)))
    Path("flow.toml").write_text(TEXT.replace("providers.local", "providers.Local"))
    return load_workflow("flow.toml", environ={})


def shard(cap: int, override: int | None = None) -> GlobalSnapshot:
    return GlobalSnapshot.model_construct(
        provider_model=KEY,
        static_cap=cap,
        override_cap=override,
        aggregate_in_flight=2,
        domains={domain: _Unused() for domain in RequestDomain},
    )


class _Unused:
    is_used = False


def test_a_value_is_known_or_says_why_it_is_not() -> None:
    with pytest.raises(ValidationError, match="either a value or a missing_reason"):
        CapacityValue(source=RUN)
    with pytest.raises(ValidationError, match="either a value or a missing_reason"):
        CapacityValue(value=1, source=RUN, missing_reason="none")


def test_the_first_source_that_says_a_value_counts_and_names_the_one_that_does_not() -> None:
    override = CapacitySource.BENCHMARK_OVERRIDE
    said = [known(1, DEFAULT), known(2, CapacitySource.MODEL_METADATA), missing("unset", RUN)]
    found: CapacityValue[int] = first_of(said)
    assert (found.value, found.source, found.fallback_from) == (2, "model_metadata", RUN)
    assert first_of([*said, known(3, override)]).value == 3
    assert first_of([missing("a", RUN), missing("b", DEFAULT)]).missing_reason == "a"


def test_an_embedding_column_asks_for_the_window_of_embeddings(workflow) -> None:
    column = 'generator = "embedding"\nname = "vector"\nmodel = "judge"\ntext = "{{ id }}"\n'
    path = Path("flow.toml")
    path.write_text(f"{path.read_text()}[[columns]]\n{column}")
    plan = capacity_plan(load_workflow("flow.toml", environ={}))
    assert plan.configured.request_resources == {
        "summary": "local/large/chat",
        "vector": "local/large/embedding",
    }


@pytest.mark.parametrize(("bound", "cap"), [(4, 4), (9, 5), (None, 5)])
def test_admission_may_lower_the_static_cap_and_never_raises_it(
    bound: int | None, cap: int
) -> None:
    said = missing("none", SERVER) if bound is None else known(bound, SERVER)
    found = lowered(known(5, RUN), said)
    assert found.value == cap
    assert (found.source, found.fallback_from) == ((SERVER, RUN) if cap == 4 else (RUN, None))


def test_the_plan_says_where_each_bound_comes_from(workflow) -> None:
    configured = capacity_plan(workflow).configured
    assert configured.buffer_size == known(7, RUN)
    rows = configured.max_admitted_rows
    assert (rows.source, rows.fallback_from) == (DEFAULT, RUN)
    cap = configured.static_caps["local/large"]
    assert (cap.cap.value, cap.cap.source) == (5, RUN)
    assert (cap.aliases, cap.raw_caps) == (("judge", "writer"), {"writer": 8, "judge": 5})
    assert configured.initial_limits["local/large/chat"] == known(3, RUN)
    assert configured.quotas["local/large"] == known({"tokens_per_minute": 900}, RUN)
    assert configured.submission_capacity.missing_reason == (
        "no server was asked; name one with --url"
    )


@pytest.mark.parametrize(
    ("shard", "cap", "source"),
    [(shard(0), 5, RUN), (shard(4), 4, SERVER), (shard(64, 3), 3, SERVER), (shard(64), 5, RUN)],
)
def test_a_server_lowers_the_cap_of_the_plan(workflow, shard, cap: int, source: str) -> None:
    plan = capacity_plan(workflow, shards={"local/large": shard}, pool_limits={"submission": 64})
    found = plan.configured.static_caps["local/large"].cap
    assert (found.value, found.source) == (cap, source)
    assert plan.configured.submission_capacity == known(64, SERVER)
    assert plan.runtime_snapshot.aggregate_in_flight["local/large"].value == 2
    reason = plan.runtime_snapshot.current_limit["local/large/chat"].missing_reason
    assert reason == "nobody has used this window on the server yet"


def test_an_expectation_is_measured_or_says_that_it_is_not(workflow) -> None:
    plan = capacity_plan(workflow)
    unmeasured = expect(workflow, plan, [])
    assert unmeasured.calls.value == 100
    assert "--sample" in str(unmeasured.cost.missing_reason)
    answer = ChatAnswer(text="a", input_tokens=1000, output_tokens=500)
    call = PreviewedCall(alias="judge", messages=[], answer=answer, seconds=2.0)
    cell = PreviewedCell(column=("summary",), values={"summary": "a"}, calls=(call,))
    measured = expect(workflow, plan, [[cell], [cell]])
    assert measured.calls.value == 100
    assert (measured.input_tokens.value, measured.output_tokens.value) == (100_000, 50_000)
    assert measured.seconds.value == pytest.approx(100 * 2.0 / 5)
    assert measured.cost.value == pytest.approx(0.2)
