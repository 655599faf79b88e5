"""Makes one run of a scenario, measures it, and checks its invariants."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.harness import POLL_SECONDS, InvariantBrokenError, final_snapshots, new_runner
from bench.run_scenes import MODEL, Scene
from bench.run_timeline import (
    Event,
    first_cell_seconds,
    first_row_group_seconds,
    problems,
)
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.runs import RunSpec
from forebay.contracts.task_policies import (
    BoundedBorrowTaskAdmissionPolicyConfig,
    TaskAdmissionConfig,
)
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.idle_gaps import IdleGaps, p99
from forebay.mock_provider.log import RequestRecord
from forebay.mock_provider.server import MockProviderServer
from forebay.workers.runs.driver import RunDriver
from forebay.workers.runs.workflow_file import load_workflow

USUAL_TRUTH: Final = {"latency_median_seconds": 0.03, "concurrency": "none"}
EVENTS: Final = pool_shard("default")["events"]
POLICIES: Final = {
    "strict": TaskAdmissionConfig(events="full"),
    "borrow": TaskAdmissionConfig(events="full", borrow=BoundedBorrowTaskAdmissionPolicyConfig()),
}


@dataclass(eq=False, slots=True, kw_only=True)
class Bench:
    """Folders, servers and settings that all runs of one bench call use.

    Attributes:
        folder: of all of them.
        url: of the server.
        client: of the server.
        workers: process ids.
        providers: a and b.
        gaps: of the workers, since they began.
        last: the last event that was read.
        seen: calls that a provider had seen when the last run began.
        count: runs that were made.
        hashes: of the output, by workflow.
        timelines: the events of each run.
        left: what the last runs left on their request shards.
    """

    folder: Path
    url: str
    client: Any
    workers: list[int]
    providers: dict[str, MockProviderServer]
    gaps: IdleGaps
    last: str = "-"
    seen: dict[str, int] = field(default_factory=dict)
    count: int = 0
    hashes: dict[str, str] = field(default_factory=dict)
    timelines: dict[str, list[Event]] = field(default_factory=dict)
    left: dict[str, Any] = field(default_factory=dict)

    def read_events(self) -> list[Event]:
        """Return the events that were not read, and note their gaps."""
        events: list[Event] = []
        for entry_id, fields in self.client.xrange(EVENTS, min=self.last):
            events.append({name.decode(): text.decode() for name, text in fields.items()})
            self.gaps.note(events[-1])
            self.last = f"({entry_id.decode()}"
        return events

    def begin(self, scene: Scene) -> None:
        """Let a new run begin, whose providers are as the scenario says."""
        self.count += 1
        self.seen = {name: len(_all_requests(one)) for name, one in self.providers.items()}
        for name, provider in self.providers.items():
            provider.change_truth(**{**USUAL_TRUTH, **(scene.truths or {}).get(name, {})})

    def requests(self, name: str) -> list[RequestRecord]:
        """Return the requests of the run in a provider's log."""
        return _all_requests(self.providers[name])[self.seen[name] :]


def _all_requests(provider: MockProviderServer) -> list[RequestRecord]:
    return [one for _, one in provider.state.log.since() if isinstance(one, RequestRecord)]


def _cpu_seconds(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(times[11]) + int(times[12])
    return total / os.sysconf("SC_CLK_TCK")


async def _drive(url: str, run: RunSpec, policy: TaskAdmissionConfig) -> float:
    async with await ServerConnection.open(url) as connection:
        pool = TaskAdmissionController(connection)
        await pool.configure(policy)
        began = time.perf_counter()
        summary = await RunDriver(connection, run).drive()
        seconds = time.perf_counter() - began
        await pool.close()
    if summary.written != run.workflow.record_count:
        raise InvariantBrokenError(
            f"run {run.run_id} wrote {summary.written} of {run.workflow.record_count} records;"
            " expected all; this is a defect, please report it."
        )
    return seconds


@contextlib.contextmanager
def _away(bench: Bench, scene: Scene, records: int) -> Iterator[None]:
    """Let provider a, which refuses all calls, come back once provider b has answered all calls.

    A run whose cells of b wait for those of a would never end.
    """
    if scene.name != "cooling":
        yield
        return
    is_over, b = threading.Event(), bench.providers["b"]
    enough = b.state.counters.ok + records

    def come_back() -> None:
        while b.state.counters.ok < enough and not is_over.wait(POLL_SECONDS):
            pass
        if not is_over.is_set():
            bench.providers["a"].change_truth(concurrency="none")

    watching = threading.Thread(target=come_back)
    watching.start()
    try:
        yield
    finally:
        is_over.set()
        watching.join()


def _calls_while_away(bench: Bench) -> float:
    """Return how many calls reached provider b after provider a's first refusal."""
    begun = {name: one.state.started_at_unix for name, one in bench.providers.items()}
    refused = [one for one in bench.requests("a") if one.refused_by is not None]
    first = min(one.arrived_at for one in refused) + begun["a"]
    return float(sum(one.arrived_at + begun["b"] > first for one in bench.requests("b")))


def _check_calls(bench: Bench, scene: Scene, records: int) -> None:
    """Compare the leases of a run with what its providers saw."""
    keys = [
        ProviderModelKey(provider_name=f"{name}{bench.count}", model_id=MODEL)
        for name in bench.providers
    ]
    bench.left |= (found := final_snapshots(bench.url, *keys))
    granted = sum(
        domain["granted"]
        for one in found.values()
        for domain in one["snapshot"]["domains"].values()
    )
    seen = [record for name in bench.providers for record in bench.requests(name)]
    answered = sum(record.status == 200 for record in seen)
    expected = sum(map(scene.calls, range(records)))
    if granted != len(seen) or answered != expected:
        raise InvariantBrokenError(
            f"{scene.name}: {granted} leases, {len(seen)} calls at the providers, of which"
            f" {answered} were answered; expected as many leases as calls, and {expected} answers;"
            " this is a defect, please report it."
        )


def make_run(bench: Bench, scene: Scene, policy: str, records: int) -> dict[str, float]:
    """Make one run, check it, and return what was measured."""
    bench.begin(scene)
    name = f"{scene.name}.{policy}"
    addresses = {place: provider.base_url for place, provider in bench.providers.items()}
    path = scene.write(bench.folder / str(bench.count), records, bench.count, addresses)
    workflow = load_workflow(path, environ={})
    spec = RunSpec(run_id=f"{scene.name}-{bench.count}", tenant="bench", workflow=workflow)
    bench.read_events()
    gaps, cpu = len(bench.gaps.seconds), _cpu_seconds(bench.workers)
    with new_runner() as runner, _away(bench, scene, records):
        seconds = runner.run(_drive(bench.url, spec, POLICIES[policy]))
    cpu = _cpu_seconds(bench.workers) - cpu
    events = bench.read_events()
    _check_calls(bench, scene, records)
    if found := problems(events):
        raise InvariantBrokenError(
            f"{name}: {'; '.join(found)}; expected events in order, and an end of each lease;"
            " this is a defect, please report it."
        )
    digest = hashlib.sha256(Path(workflow.output.path).read_bytes()).hexdigest()
    if bench.hashes.setdefault(scene.name, digest) != digest:
        raise InvariantBrokenError(f"two runs of {scene.name} wrote different records.")
    bench.timelines[name] = events
    measures = {f"{name}.seconds": seconds, f"{name}.worker_cpu_seconds": cpu}
    if policy == "strict":
        idle = bench.gaps.seconds[gaps:]
        measures[f"{name}.ready_idle_gap_p99_ms"] = p99(idle) * 1e3
    if scene.name == "cooling":
        measures[f"{name}.calls_while_cooling"] = _calls_while_away(bench)
    return measures | _times(events, scene, name)


def _times(events: list[Event], scene: Scene, name: str) -> dict[str, float]:
    found: dict[str, float | None] = {f"{name}.first_row_group": first_row_group_seconds(events)}
    if scene.downstream:
        found[f"{name}.first_downstream"] = first_cell_seconds(events, scene.downstream)
    return {measure: value for measure, value in found.items() if value is not None}
