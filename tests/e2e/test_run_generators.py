"""Generators of every kind in whole runs: records from scratch, plugins, validators.

Rules: design 05, *Generators*.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forebay.contracts.runs import RunSpec
from forebay.contracts.workflow import Workflow
from forebay.coordinator.server_connection import ServerConnection
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from forebay.workers.runs.allowlist import Allowlist
from forebay.workers.runs.driver import RunDriver, RunSummary
from forebay.workers.runs.run_cells import RunCells
from forebay.workers.runs.workflow_file import load_workflow
from tests.support_arq import working
from tests.support_runs import read_records

CODE = '''
import asyncio

under_way, most, tried = 0, 0, []


class Numbers:
    task_type = "from_scratch"

    def generate(self, numbers, models):
        return [10 * number for number in numbers]


class Ranks:
    """A batch, which its class says and no workflow has to."""

    task_type = "batch"

    def __init__(self, start=0):
        self.start = start

    def generate(self, records, models):
        numbers = sorted(record["number"] for record in records)
        return [self.start + numbers.index(record["number"]) for record in records]


async def alone(record, models):
    global under_way, most
    under_way += 1
    most = max(most, under_way)
    for _ in range(200):  # turns of the loop in which others would begin
        await asyncio.sleep(0)
    under_way -= 1
    return most


def second_try(record, models):
    tried.append(record["number"])
    return f"{record['number']} {tried.count(record['number'])}"
'''


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of the code, which is installed as the plugins ``lab-ranks`` and ``lab.alone``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    module = f"lab_{abs(hash(str(tmp_path)))}"
    about = tmp_path / "site" / "lab-1.0.dist-info"
    about.mkdir(parents=True)
    (tmp_path / "site" / f"{module}.py").write_text(CODE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    points = f"[forebay.generators]\nlab-ranks = {module}:Ranks\nlab.alone = {module}:alone\n"
    (about / "entry_points.txt").write_text(points)
    return module


def written(columns: Sequence[dict[str, Any]], base_url: str) -> Workflow:
    """Load a workflow of six records without a seed file, in row groups of three."""
    document = {
        "name": "w",
        "records": 6,
        "buffer_size": 3,
        "output": {"path": "out.jsonl"},
        "providers": {"lab": {"base_url": base_url}},
        "models": {"m": {"provider": "lab", "model": "m", "max_parallel_requests": 4}},
        "columns": columns,
    }
    Path("w.yaml").write_text(json.dumps(document))
    return load_workflow("w.yaml", environ={})


async def made(
    url: str, code: list[str], *columns: dict[str, Any], base_url: str = "http://127.0.0.1:1/v1"
) -> RunSummary:
    """Run a workflow with two workers."""
    workflow = written(columns, base_url)
    allowed = Allowlist.of(hosts=["127.0.0.1"], code=code)
    cells = partial(RunCells, environ={}, allowed=allowed)
    run = RunSpec(run_id="w-1", tenant="t", workflow=workflow)
    async with (
        working(url, cells=cells),
        working(url, cells=cells),
        await ServerConnection.open(url) as connection,
    ):
        return await RunDriver(connection, run).drive()


def python(name: str, function: str, **terms: Any) -> dict[str, Any]:
    return {"generator": "python", "name": name, "function": function} | terms


async def test_records_without_a_seed_file_are_made_from_scratch_and_by_plugins(
    redis_url: str, code: str
) -> None:
    summary = await made(
        redis_url,
        [code, "lab-ranks"],
        python("number", f"{code}:Numbers"),
        {"generator": "sampler", "name": "mood", "kind": "category", "values": ["calm"]},
        {"generator": "expression", "name": "same", "template": "the same"},
        python("rank", "lab-ranks", needs=["number"], params={"start": 1}),
    )
    assert (summary.written, summary.dropped) == (6, 0)
    assert read_records(summary.output) == [
        {"number": 10 * place, "mood": "calm", "same": "the same", "rank": 1 + place % 3}
        for place in range(6)
    ]


async def test_an_exclusive_plugin_runs_alone_in_the_whole_fleet(redis_url: str, code: str) -> None:
    number = python("number", f"{code}:Numbers")
    for exclusive, most in ((True, [1] * 6), (False, [2, 3, 4, 5, 6])):
        column = python("most", "lab.alone", needs=["number"], exclusive=exclusive)
        summary = await made(redis_url, [code, "lab.alone"], number, column)
        seen = [row["most"] for row in read_records(summary.output)]
        assert seen == most if exclusive else max(seen) in most
        summary.output.unlink()


async def test_a_validator_has_a_cell_made_again_before_its_vector_is_asked_for(
    redis_url: str, code: str
) -> None:
    with MockProviderServer(ProviderTruth(embedding_dimensions=4)) as provider:
        summary = await made(
            redis_url,
            [code],
            python("number", f"{code}:Numbers"),
            python("text", f"{code}:second_try", needs=["number"]),
            {"generator": "validator", "name": "ok", "checks": "text", "on_invalid": "retry"}
            | {"expression": "text.endswith('2') or text == '50 1'"},
            {"generator": "embedding", "name": "vector", "model": "m", "text": "{{ text }}"},
            base_url=provider.base_url,
        )
        assert provider.state.counters.ok == 6
    rows = read_records(summary.output)
    assert [row["text"] for row in rows] == ["0 2", "10 2", "20 2", "30 2", "40 2", "50 1"]
    assert all(row["ok"] is True and len(row["vector"]) == 4 for row in rows)
    assert sorted(sys.modules[code].tried) == [0, 0, 10, 10, 20, 20, 30, 30, 40, 40, 50]
