"""A driver whose server is away says so once, waits, and says its return.

Rules: design 05, *Drivers*; design 06, *When Redis is away*.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.contracts.errors import RunRefused
from forebay.contracts.runs import RunProgress, RunSpec
from forebay.contracts.settings import MemberSettings
from forebay.contracts.tasks import RunCell
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.runs.tracker import CompletionTracker
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.workers.runs import driver as run_driver
from forebay.workers.runs.allowlist import Allowlist
from forebay.workers.runs.cells import CellsDeferred
from forebay.workers.runs.driver import RunDriver
from forebay.workers.runs.run_cells import RunCells
from forebay.workers.runs.workflow_file import load_workflow
from tests.support import wait_until
from tests.support_proxy import FaultyProxy
from tests.support_runs import WORKFLOW
from tests.support_scene import soon

BRIEF = MemberSettings(ttl_seconds=3600.0, call_timeout_seconds=0.3, recheck_seconds=0.05)


def run_into(folder: Path) -> RunSpec:
    workflow = load_workflow(WORKFLOW, environ=os.environ)
    output = workflow.output.model_copy(update={"path": str(folder / "out.jsonl")})
    return RunSpec(
        run_id="run",
        tenant="t",
        weight=1.0,
        workflow=workflow.model_copy(update={"output": output}),
    )


def loud(logs: list[Any], *events: str) -> list[tuple[str, str]]:
    return [(e["event"], e["log_level"]) for e in logs if e["event"] in events]


@pytest.fixture
async def proxy(redis_url):
    async with FaultyProxy(redis_url) as proxy:
        yield proxy


async def test_a_driver_that_cannot_read_says_so_once_and_its_return_once(
    redis_url, proxy, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_driver, "RECHECK_SECONDS", 0.02)
    looks: list[int] = []
    async with await ServerConnection.open(proxy.url, BRIEF) as connection:
        driver = RunDriver(connection, run_into(tmp_path), on_progress=lambda _: looks.append(1))
        driving = asyncio.create_task(driver.drive())
        await wait_until(lambda: bool(looks))
        with capture_logs() as logs:
            proxy.refuse()
            await wait_until(lambda: driver._state.is_lost)
            await proxy.accept()
            seen = len(looks)
            await wait_until(lambda: len(looks) > seen)
            await wait_until(lambda: connection.availability._logged is None)
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(driving)
    away, back = (loud(logs, f"coordinator_{state}") for state in ("unavailable", "available"))
    assert len(away) == len(back) <= 3
    assert {level for _event, level in away + back} == {"warning"}


async def test_a_run_that_cannot_be_cancelled_is_said_and_its_driver_ends_all_the_same(
    redis_url, proxy, tmp_path
):
    def fail(_progress: RunProgress) -> None:
        proxy.refuse()
        raise RunRefused("no worker may make it")

    async with await ServerConnection.open(proxy.url, BRIEF) as connection:
        driver = RunDriver(connection, run_into(tmp_path), on_progress=fail)
        with capture_logs() as logs, pytest.raises(RunRefused):
            await soon(driver.drive())
        await proxy.accept()
    assert loud(logs, "run_not_cancelled") == [("run_not_cancelled", "warning")]


async def test_a_cell_whose_run_was_being_prepared_by_a_cancelled_task_is_made_later(redis_url):
    async with await ServerConnection.open(redis_url, BRIEF) as connection:
        tasks = TaskAdmissionController(connection)
        tracker = CompletionTracker(tasks, connection.client)
        requests = AdaptiveRequestAdmissionController(connection)
        cells = RunCells(tracker, requests, {}, Allowlist())
        making = asyncio.create_task(cells.make(RunCell(run_id="r", column_index=1, number=0), 1))
        await asyncio.sleep(0)
        for preparing in cells._runs._prepared.values():
            preparing.cancel()
        assert isinstance(await soon(making), CellsDeferred)
        await cells.aclose()
        await tasks.close()
