"""What a worker registers before it makes the cells of a run (design 05, *Readiness*)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from forebay.contracts.identity import ProviderModelKey, RequestDomain
from forebay.contracts.quotas import QuotaBudget
from forebay.contracts.run_use import ColumnUse
from forebay.contracts.runs import RunSpec
from forebay.contracts.settings import RequestAdmissionConfig, RequestQuotas
from forebay.contracts.tasks import RunCell
from forebay.workers.runs.allowlist import Allowlist
from forebay.workers.runs.cells import CellsMade
from forebay.workers.runs.run_cells import RunCells
from forebay.workers.runs.workflow_file import load_workflow
from tests.support_executor import FakeAdmission

WORKFLOW = """
name = "letters"
output.path = "out.jsonl"
providers.local.base_url = "http://localhost:1/v1"
[models.writer]
provider = "local"
model = "large"
max_parallel_requests = 8
[models.writer.quotas]
tokens_per_minute = 9000
bursts = {tokens_per_minute = 500}
[models.judge]
provider = "local"
model = "large"
max_parallel_requests = 8
initial_limit = 6
tuning = {additive_increase_step = 2}
[[columns]]
generator = "seed"
names = ["id", "text"]
path = "seed.csv"
"""


class Tracker:
    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec.model_dump_json()
        self.used: list[ColumnUse] = []

    async def spec(self, _run_id: str) -> RunSpec:
        return RunSpec.model_validate_json(self._spec)

    async def accept(self, _run_id: str) -> bool:
        return True

    def report_use(self, _run_id: str, _column: int, take: Callable[[], ColumnUse]) -> None:
        self.used.append(take())


class Registering(FakeAdmission):
    pressure = None  # nobody waits

    def __init__(self) -> None:
        super().__init__()
        self.configs: dict[str, RequestAdmissionConfig] = {}

    async def register(
        self, _: ProviderModelKey, alias: str, __: int, config: RequestAdmissionConfig
    ) -> int:
        self.configs[alias] = config
        return 8


async def test_what_a_model_says_is_registered_and_the_rest_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "seed.csv").write_text("id,text\n1,a\n")
    (tmp_path / "flow.toml").write_text(WORKFLOW)
    workflow = load_workflow(tmp_path / "flow.toml", environ={})
    admission = Registering()
    tracker = Tracker(RunSpec(run_id="r", tenant="t", workflow=workflow))
    allowed = Allowlist.of(paths=[tmp_path], hosts=["localhost:1"])
    cells = RunCells(cast("Any", tracker), cast("Any", admission), {}, allowed)

    made = await cells.make(RunCell(run_id="r", column_index=1, number=0), 1)

    assert made == CellsMade(values={0: {"id": '"1"', "text": '"a"'}})
    for config in admission.configs.values():  # one window, whichever alias registers last
        assert config.tuning.rule == "aimd"
        assert config.initial_limits == dict.fromkeys(RequestDomain, 6)
    assert {alias: config.quotas for alias, config in admission.configs.items()} == {
        "writer": RequestQuotas(
            tokens_per_minute=9000, bursts={QuotaBudget.TOKENS_PER_MINUTE: 500}
        ),
        "judge": None,
    }
    await cells.aclose()
