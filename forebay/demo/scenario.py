"""The demo: four workers, three tenants, a provider whose capacity drops, and a worker that dies.

Nothing is simulated: a real server, real processes, a real HTTP provider that refuses above a limit
which nobody but it knows.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.contracts.runs import RunSpec
from forebay.contracts.settings import MemberSettings
from forebay.contracts.task_policies import TaskAdmissionConfig
from forebay.contracts.workflow import Workflow
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection, pid_of
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.idle_gaps import IdleGaps
from forebay.coordinator.tasks.snapshots import audit_pool
from forebay.demo.observations import Look, Observations, take_log
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from forebay.runtime import start_worker, stop_workers
from forebay.workers.runs.driver import RunDriver
from forebay.workers.runs.workflow_file import load_workflow

TENANTS: Final = {"atlas": 3.0, "borealis": 2.0, "cumulus": 1.0}
WORKERS: Final = 4
SLOTS_PER_WORKER: Final = 12
TTL_SECONDS: Final = 2.0
CAPACITY: Final = 24
DROPPED_CAPACITY: Final = 12
DROP_AT: Final = 0.4
"""Share of the records that are done when the capacity drops; it stays down for a while."""
DROPPED_FOR_SECONDS: Final = 5.0
KILL_AT: Final = 0.65
LOOK_SECONDS: Final = 0.1
WORKFLOW: Final = Path(str(files("forebay.demo.support_triage") / "workflow.toml"))
PROVIDER: Final = ProviderTruth(
    concurrency=CAPACITY, latency_median_seconds=0.5, latency_sigma=0.25, retry_after_seconds=0.15
)


class FleetBeside(Protocol):
    """A fleet of another kind beside the demo's, with a provider of its own."""

    def begin(self, calls: int) -> None:
        """Begin so many calls."""

    def change(self, capacity: int) -> None:
        """Change the hidden capacity of its provider."""


class Demo:
    """Runs the scenario once.

    Args:
        folder: where output files go.
        on_look: told of each look while it runs.
        beside: a fleet that meets the same changes of capacity meanwhile, if any.
    """

    def __init__(
        self,
        folder: Path,
        on_look: Callable[[Observations], None],
        beside: FleetBeside | None = None,
    ) -> None:
        self._folder = folder
        self._on_look = on_look
        self._beside = beside
        self._seen = Observations()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._gaps = IdleGaps(self._slots_of)
        self._last_event = "-"

    def run(self, run_async: Callable[..., None]) -> Observations:
        """Run the scenario to its end and return the observations."""
        with MockProviderServer(PROVIDER, seed=7) as provider, EmbeddedServer() as server:
            address = {"FOREBAY_PROVIDER_LOCAL_BASE_URL": provider.base_url}
            self._workers = [
                start_worker(
                    server.url,
                    *("--slots", str(SLOTS_PER_WORKER), "--ttl", str(TTL_SECONDS)),
                    *("--allow-path", str(WORKFLOW.parent)),
                    environ=address,
                )
                for _ in range(WORKERS)
            ]
            try:
                run_async(self._main(server.url, provider, {**os.environ, **address}))
            finally:
                stop_workers(self._workers)
        return self._seen

    async def _main(self, url: str, provider: MockProviderServer, environ: dict[str, str]) -> None:
        workflow = await asyncio.to_thread(load_workflow, WORKFLOW, environ=environ)
        self._seen.records = workflow.record_count * len(TENANTS)
        async with await ServerConnection.open(url, MemberSettings()) as connection:
            await self._workers_ready(connection)
            pool = TaskAdmissionController(connection)
            await pool.configure(TaskAdmissionConfig(events="full"))
            await pool.close()
            self._started = time.monotonic() - provider.state.elapsed_seconds()
            if self._beside is not None:
                await asyncio.to_thread(self._beside.begin, 2 * self._seen.records)
            await beside(
                self._drive_all(connection, workflow),
                self._disturb(provider),
                self._look_on(connection, workflow),
            )
            await self._conclude(connection, workflow, provider)

    def _now(self) -> float:
        return time.monotonic() - self._started

    async def _workers_ready(self, connection: ServerConnection) -> None:
        """The tenants start together, once every worker is a member of the pool."""
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline:
            if await connection.client.zcard(pool_shard("default")["members"]) >= WORKERS:
                return
            if any(worker.poll() is not None for worker in self._workers):
                break
            await asyncio.sleep(0.02)
        raise ConfigurationError("the demo's workers did not start; run it again with --debug.")

    async def _drive_all(self, connection: ServerConnection, workflow: Workflow) -> None:
        await asyncio.gather(
            *(
                self._drive(connection, workflow, tenant, weight)
                for tenant, weight in TENANTS.items()
            )
        )

    async def _drive(
        self, connection: ServerConnection, workflow: Workflow, tenant: str, weight: float
    ) -> None:
        output = workflow.output.model_copy(update={"path": str(self._folder / f"{tenant}.jsonl")})
        run = RunSpec(
            run_id=f"demo-{tenant}",
            tenant=tenant,
            weight=weight,
            workflow=workflow.model_copy(update={"output": output}),
        )
        self._seen.summaries[tenant] = await RunDriver(connection, run).drive()
        self._seen.finished_at[tenant] = self._now()

    async def _disturb(self, provider: MockProviderServer) -> None:
        await self._until_done(DROP_AT)
        await self._change(provider, CAPACITY, DROPPED_CAPACITY)
        await asyncio.sleep(DROPPED_FOR_SECONDS)
        await self._change(provider, DROPPED_CAPACITY, CAPACITY)
        await self._until_done(KILL_AT)
        self._workers[0].send_signal(signal.SIGKILL)
        self._seen.killed_at = self._now()
        self._seen.notes.append((self._seen.killed_at, "SIGKILL of one worker"))

    async def _change(self, provider: MockProviderServer, before: int, after: int) -> None:
        await asyncio.to_thread(provider.change_truth, concurrency=after)
        if self._beside is not None:
            self._beside.change(after)
        self._seen.notes.append((self._now(), f"capacity {before} -> {after}"))

    async def _until_done(self, share: float) -> None:
        while self._succeeded() < share * 2 * self._seen.records:  # noqa: ASYNC110 - looks are timed
            await asyncio.sleep(LOOK_SECONDS)

    def _succeeded(self) -> int:
        return self._seen.looks[-1].succeeded if self._seen.looks else 0

    async def _look_on(self, connection: ServerConnection, workflow: Workflow) -> None:
        pressure = RequestPressureSnapshotProvider(connection)
        while True:
            shard = await pressure.global_snapshot(_provider_model(workflow))
            chat = shard.domains[RequestDomain.CHAT]
            self._seen.looks.append(
                Look(
                    at=self._now(),
                    window=chat.current_limit,
                    in_flight=chat.in_flight_count,
                    waiting=chat.waiters,
                    rate_limited=chat.outcomes.get(RequestOutcomeKind.RATE_LIMITED, 0),
                    succeeded=chat.outcomes.get(RequestOutcomeKind.SUCCESS, 0),
                    records_done=await _records_done(connection),
                )
            )
            if self._seen.killed_at and not self._seen.freed_at and shard.member_count < WORKERS:
                self._seen.freed_at = self._now()
            await self._note_events(connection)
            self._on_look(self._seen)
            await asyncio.sleep(LOOK_SECONDS)

    async def _note_events(self, connection: ServerConnection) -> None:
        """Follow the pool's events; the server keeps the last 8192, many seconds of them."""
        events = pool_shard("default")["events"]
        for entry_id, fields in await connection.client.xrange(events, min=self._last_event):
            self._gaps.note({name.decode(): text.decode() for name, text in fields.items()})
            self._last_event = f"({entry_id.decode()}"
        self._seen.idle_gaps = self._gaps.seconds

    def _slots_of(self, member_id: str) -> int:
        is_worker = pid_of(member_id) in {worker.pid for worker in self._workers}
        return SLOTS_PER_WORKER if is_worker else 0

    async def _conclude(
        self, connection: ServerConnection, workflow: Workflow, provider: MockProviderServer
    ) -> None:
        pressure = RequestPressureSnapshotProvider(connection)
        key = _provider_model(workflow)
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:  # the last releases are under way
            self._seen.final = await pressure.global_snapshot(key)
            if self._seen.final.aggregate_in_flight == 0:
                break
            await asyncio.sleep(LOOK_SECONDS)
        await self._note_events(connection)
        self._gaps.close()
        self._seen.audits = [
            await pressure.audit(key),
            await audit_pool(connection, "default"),
        ]
        take_log(provider, self._seen)


async def beside(work: Coroutine[Any, Any, None], *aside: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine beside background ones, which end with it; raises their exceptions.

    A cancellation that comes while these end is this task's own, and raised.
    """
    tasks = [asyncio.create_task(each) for each in aside]
    try:
        await work
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def _records_done(connection: ServerConnection) -> dict[str, int]:
    """Return each tenant's whole records so far; a run that has ended counts no more."""
    names = [f"demo-{tenant}\0done" for tenant in TENANTS]
    counts = await connection.client.hmget(pool_shard("default")["progress"], names)
    return {tenant: int(n or 0) for tenant, n in zip(TENANTS, counts, strict=True)}


def _provider_model(workflow: Workflow) -> ProviderModelKey:
    model = next(iter(workflow.models.values()))
    return RequestResourceResolver().resolve(model.provider, model.model).provider_model
