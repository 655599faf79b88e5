"""One chaos run: runs, arq jobs and SDK callers at once, under the faults of a schedule."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from arq.jobs import JobResult
from redis.exceptions import RedisError

from forebay.contracts.errors import ForebayError
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.tasks.administration import set_pool_state
from forebay.coordinator.tasks.snapshots import audit_pool
from forebay.workers.arq.pool import JobPool
from tests.chaos import observers
from tests.chaos.caller import CAP
from tests.chaos.faults import inject
from tests.chaos.losses import Enqueued, JobFates, silent, with_unheard
from tests.chaos.observers import Difference, Jobs, LossPeriod
from tests.chaos.scene import POOL, RUNS_POOL, SHARD, USUAL_TRUTH, Scene
from tests.chaos.schedule import Fault
from tests.chaos.start import RECORDS, Given, begin, json_lines

PILLS: Final = {"exit": "WorkerLost", "segfault": "WorkerLost", "raise": "JobExecutionFailed"}
QUIET_SECONDS: Final = 90.0
"""Within which all that was begun is over, once faults are."""
STANDSTILL_SECONDS: Final = 12.0
"""Without a fault under way: a TTL, a reconnect, a cooldown, and a busy machine."""


@dataclass(kw_only=True)
class Found:
    """The result of a chaos run.

    Attributes:
        injected: faults by kind.
        differences: by the observers, with seconds since the run began.
        counts: calls, jobs and runs, by name.
    """

    injected: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)


async def run(folder: Path, given: Given, faults: Sequence[Fault]) -> Found:
    """Make a chaos run in a folder, which keeps the files that its observers read.

    Raises:
        AssertionError: the run could not begin or end; this is no difference.
    """
    async with contextlib.AsyncExitStack() as stack:
        scene, jobs, zero = await begin(stack, folder, given)
        began = time.monotonic()
        chaos = _Chaos(scene, jobs, given, began)
        found = await chaos.run(faults)
        await chaos.observe(found, zero)
    found.differences = [Difference(round(at - began, 2), what) for at, what in found.differences]
    found.differences.sort()
    return found


class _Chaos:
    """A run under way."""

    def __init__(self, scene: Scene, jobs: JobPool, given: Given, began: float) -> None:
        self._scene = scene
        self._jobs = jobs
        self._given = given
        self._began = began
        self._submitted: list[Enqueued] = []
        self._seen: dict[str, JobResult] = {}
        self._last_run = ""
        self._found = Found()
        scene.enqueue = self._enqueue
        scene.read_results = self._results

    async def run(self, faults: Sequence[Fault]) -> Found:
        found, fleet = self._found, self._scene.fleet
        supervising = asyncio.create_task(fleet.supervise())
        submitting = asyncio.create_task(self._submit())
        injecting: set[asyncio.Task[None]] = set()
        try:
            for fault in faults:
                await asyncio.sleep(max(0.0, self._began + fault.at - time.monotonic()))
                injecting.add(asyncio.create_task(self._inject(fault)))
                found.injected[fault.kind] += 1
            await asyncio.sleep(max(0.0, self._began + self._given.seconds - time.monotonic()))
            await asyncio.gather(submitting, *injecting)
            await self._undo()
            self._last_run = fleet.runs[-1]
            await self._until(self._is_quiet, "what was begun is over")
        finally:
            for task in (supervising, submitting, *injecting):
                task.cancel()
            await asyncio.gather(supervising, submitting, *injecting, return_exceptions=True)
        await asyncio.to_thread(fleet.end, "caller", "driver")
        return found

    async def _inject(self, fault: Fault) -> None:
        try:
            await inject(self._scene, fault)
        except Exception as error:  # noqa: BLE001 - that is a difference, not an end
            self._differs(f"{fault.kind} could not be injected: {error!r}")

    def _differs(self, what: str) -> None:
        self._found.differences.append(Difference(time.monotonic(), what))

    async def _undo(self) -> None:
        """Undo changes of limits and caps, so that open calls, jobs and runs can end."""
        scene = self._scene
        await scene.truth(**USUAL_TRUTH)
        await scene.move_cap(CAP)
        await scene.operate(lambda: scene.tasks.set_limit("submission", 10))
        await scene.operate(lambda: set_pool_state(scene.connection, POOL, "open"))

    async def _until(self, predicate: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + QUIET_SECONDS
        while not await predicate():
            if time.monotonic() > deadline:
                self._differs(f"not within {QUIET_SECONDS:g} s: {what}")
                return
            await asyncio.sleep(0.5)

    # -- jobs

    async def _submit(self) -> None:
        """Submit jobs at a rate, three of which end their process (pills)."""
        given, draw = self._given, random.Random(self._given.seed)
        count = int(given.seconds * given.jobs_per_second)
        pills = dict(zip(draw.sample(range(count // 2), len(PILLS)), PILLS, strict=True))
        for number in range(count):
            due = self._began + number / given.jobs_per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if number in pills:
                await self._enqueue("pill", pills[number], pills[number])
            seconds = min(2.0, draw.expovariate(1 / 0.3))
            await self._enqueue("innocent", seconds, f"i{number}")

    async def _enqueue(self, function: str, argument: Any, job_id: str) -> None:
        """Enqueue a job, again until the server has taken it."""
        began = time.monotonic()

        async def once() -> None:
            group = f"g{len(self._submitted) % 5}"
            await self._jobs.enqueue_job(function, argument, _job_id=job_id, _group=group)

        try:
            await self._scene.operate(once)
        except Exception as error:  # noqa: BLE001 - that is a difference, not an end
            self._differs(f"job {job_id} could not be enqueued: {error!r}")
        else:
            self._submitted.append(Enqueued(job_id, began, time.monotonic()))

    async def _results(self) -> None:
        """Read the results that there are; a later loss of them changes nothing."""
        with contextlib.suppress(ForebayError, OSError, RedisError):
            self._seen |= {one.job_id: one for one in await self._jobs.all_job_results()}

    async def _is_quiet(self) -> bool:
        """Whether each job that is not gone has a result, and the run that is driven its output."""
        await self._results()
        has_run = (self._scene.fleet.folder / f"{self._last_run}.done").exists()
        return has_run and not self._unfinished(self._read_jobs(), time.monotonic())

    def _read_jobs(self) -> Jobs:
        return observers.read_jobs(json_lines(self._scene.fleet.folder / "jobs"))

    def _unfinished(self, jobs: Jobs, end: float) -> list[Difference]:
        scene = self._scene
        fates = JobFates(
            jobs=jobs,
            results={job: result.success for job, result in self._seen.items()},
            losses=sorted(scene.losses, key=lambda loss: loss.begin),
            away=self._away(jobs, end),
            deaths=scene.fleet.deaths,
            without_payload=frozenset(scene.without_payload | set(PILLS)),
        )
        return fates.unfinished(self._submitted, end)

    def _away(self, jobs: Jobs, end: float) -> list[LossPeriod]:
        """Return when processes could not state what they held: faults, and blocking jobs."""
        blocked = [
            LossPeriod(
                start.begin,
                start.end or self._scene.fleet.deaths.get(start.process, end),
                start.process,
            )
            for job, starts in jobs.starts.items()
            if job.startswith("blocker")
            for start in starts
        ]
        return [*self._scene.away, *blocked]

    # -- what the observers say

    async def observe(self, found: Found, zero: float) -> None:
        scene, end = self._scene, time.monotonic()
        fleet, folder = scene.fleet, scene.fleet.folder
        await self._until(self._books_agree, "the audits agree and nothing is held")
        calls = observers.read_calls(json_lines(folder / "provider"), zero)
        told = [line for file in folder.glob("calls-*") for line in json_lines(file)]
        jobs = self._read_jobs()
        await self._results()
        lost = scene.lost + silent(scene.losses, self._away(jobs, end))
        found.differences += observers.overruns(calls, with_unheard(scene.caps, scene.losses), lost)
        found.differences += observers.standstills(
            calls, scene.under_way, STANDSTILL_SECONDS, self._began + self._given.seconds
        )
        found.differences += observers.twice_at_once(jobs, fleet.deaths, lost, end)
        found.differences += self._unfinished(jobs, end)
        found.differences += [
            Difference(end, f"pill {pill} ended as {type(self._seen[pill].result).__name__}")
            for pill, error in PILLS.items()
            if pill in self._seen and getattr(self._seen[pill].result, "error_type", "") != error
        ]
        found.differences += observers.hung_or_untyped(told)
        found.differences += [Difference(end, what) for what in fleet.unexpected]
        found.counts = {
            "provider_calls": len(calls),
            "most_in_flight": _most_at_once(calls),
            "calls_told": dict(Counter(what for _began, _ended, what in told)),
            "longest_call_seconds": round(max((e - b for b, e, _w in told), default=0.0), 1),
            "jobs": len(self._submitted),
            "jobs_begun_again": sum(len(starts) > 1 for starts in jobs.starts.values()),
            "runs": self._observe_runs(found, end),
        }

    def _observe_runs(self, found: Found, end: float) -> int:
        """Look at the output of each run that is over; return how many are."""
        over = 0
        asked = [str(number) for number in range(RECORDS)]
        for run_id in self._scene.fleet.runs:
            done = self._scene.fleet.folder / f"{run_id}.done"
            if done.exists():
                over += 1
                told = json.loads(done.read_text())
                output = [str(row["number"]) for row in json_lines(Path(told["output"]))]
                dropped = json_lines(Path(told["dropped"])) if told["dropped"] else []
                is_whole = len(output) + len(dropped) >= RECORDS
                others = [number for number in asked if is_whole and number not in output]
                found.differences += observers.wrong_output(run_id, output, others, asked, end)
        return over

    async def _books_agree(self) -> bool:
        connection = self._scene.connection
        try:
            requests = RequestPressureSnapshotProvider(connection)
            shard = await requests.global_snapshot(SHARD)
            audits = [await audit_pool(connection, POOL), await audit_pool(connection, RUNS_POOL)]
            audits.append(await requests.audit(SHARD))
        except ForebayError:
            return False
        return all(audit.ok for audit in audits) and not shard.waiters


def _most_at_once(calls: Sequence[observers.ProviderCall]) -> int:
    changes = sorted([(c.begin, 1) for c in calls] + [(c.end, -1) for c in calls])
    most = now = 0
    for _at, change in changes:
        now += change
        most = max(most, now)
    return most
