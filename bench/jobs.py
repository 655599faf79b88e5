"""Jobs: no-op jobs a second and submit to start, beside other libraries (bench/peers).

Each round gives every library its turn on the same server, with one and with two worker processes,
one after the other in a rotating order. Jobs are submitted first; the time from the first job's
start to the last one's counts, as the jobs note it themselves, so no start-up is in it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

import redis

from bench.figures import Figure, Iterations, in_ms, middle, of_rounds, p95, ratios
from bench.harness import Fleet, InvariantBrokenError, Outcome, Progress, repeat, rotated
from bench.jobs_idle import idle_gaps
from bench.jobs_processes import Count, Start, Stop, Submit, serve
from bench.jobs_queue import check_books, cycles, queued_bytes
from bench.peers.job_library import CONCURRENCY
from bench.peers.registry import JOBS, installed, missing
from forebay.coordinator.server.embedded import EmbeddedServer

WORKERS: Final = (1, 2)
SUBMITTER: Final = max(WORKERS)
"""The process that submits; those before it work."""
LOOK_SECONDS: Final = 0.05
DEADLINE_SECONDS: Final = 120.0
ARQ_AIMS: Final = {1: 3.0, 2: 5.0}
"""Times arq's jobs a second, by workers; of the others at least as many."""
LATENCY_AIMS: Final = {"saq": 0.9, "taskiq": 1.0, "taskiq_results": 1.0}
"""Of submit to start, in that of a peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run of the scenario.

    Attributes:
        jobs: of each turn.
        rounds: how often each library has its turn.
        singles: submits to an idle worker, one at a time.
        pause_seconds: between two of these.
        queued: tasks whose memory is counted.
        groups: of the two queues whose admit cycles are compared.
        cycles: of each.
        bursts: of jobs, which idle workers meet, to see how long they stay idle.
        burst_jobs: of each burst.
    """

    jobs: int = 5_000
    rounds: int = 5
    singles: int = 200
    pause_seconds: float = 0.02
    queued: int = 100_000
    groups: tuple[int, int] = (8, 10_000)
    cycles: int = 1_000
    bursts: int = 30
    burst_jobs: int = 300


FULL: Final = Inputs()
SMOKE: Final = Inputs(
    jobs=200, rounds=1, singles=10, queued=500, groups=(8, 100), cycles=20, bursts=2
)


class Turns:
    """One server, its worker processes and the one that submits.

    Attributes:
        snapshot: the pool when its jobs had ended last.
    """

    def __init__(self, fleet: Fleet, client: Any, url: str, progress: Progress) -> None:
        self._progress = progress
        self._url = url
        self._fleet = fleet
        self._client = client
        self.snapshot: dict[str, Any] = {}

    def rate(self, library: str, workers: int, jobs: int) -> float | None:
        """Return jobs a second, from the first start to the last; None if no time was between."""
        self._client.flushall()
        self._fleet.ask({SUBMITTER: Submit(library=library, count=jobs)})
        numbers = range(workers)
        self._fleet.ask({number: Start(library=library) for number in numbers})
        starts = self._ended(library, numbers, jobs)
        took = max(starts) - min(starts) if starts else 0.0
        return (jobs - 1) / took if took > 0 else None

    def latencies(self, library: str, inputs: Inputs) -> list[float]:
        """Return each single submit's seconds to the start of its job, on an idle worker."""
        self._client.flushall()
        self._fleet.ask({0: Start(library=library)})
        order = Submit(library=library, count=inputs.singles, pause_seconds=inputs.pause_seconds)
        (submitted,) = self._fleet.ask({SUBMITTER: order})
        starts = self._ended(library, range(1), inputs.singles)
        starts.sort()
        return [starts[bisect_left(starts, at)] - at for at in submitted] if starts else []

    def _ended(self, library: str, numbers: Sequence[int], jobs: int) -> list[float]:
        """Wait until each job has started and left its result, end the workers, return starts.

        Returns:
            When each job started; nothing where a peer's jobs took too long, which is said.

        Raises:
            InvariantBrokenError: Forebay's jobs took too long, or did not start once each.
        """
        peer = installed(JOBS)[library]
        is_over = self._is_reached(
            lambda: sum(self._fleet.ask({n: Count() for n in numbers})), jobs
        ) and (
            peer.results(self._client) is None
            or self._is_reached(lambda: peer.results(self._client), jobs)
        )
        starts = [at for answer in self._fleet.ask({n: Stop() for n in numbers}) for at in answer]
        if library == "forebay":  # the others promise no more than once or more
            if not is_over or len(starts) != jobs:
                raise InvariantBrokenError(
                    f"{len(starts)} jobs were started within {DEADLINE_SECONDS:g} s, expected each"
                    f" of {jobs} once, and its result; this is a defect, please report it."
                )
            self.snapshot = check_books(self._url)
        elif not is_over:
            self._progress(
                f"jobs: {peer.said} did not end {jobs} jobs within {DEADLINE_SECONDS:g} s, so this"
                " turn of it is not measured"
            )
            return []
        return starts

    @staticmethod
    def _is_reached(count: Callable[[], Any], expected: int) -> bool:
        """Wait until a count is as expected; return False where it is not in time."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while count() < expected:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        return True


def _round(turns: Turns, inputs: Inputs, number: int) -> dict[str, float]:
    found = {}
    for library in rotated(list(installed(JOBS)), number):
        for workers in WORKERS:
            rate = turns.rate(library, workers, inputs.jobs)
            if rate is not None:
                found[f"{library}.{workers}_workers.jobs_per_second"] = rate
        name = f"{library}.submit_to_start"
        found |= in_ms(
            turns.latencies(library, inputs), {f"{name}_median_ms": median, f"{name}_p95_ms": p95}
        )
    return found


def _rates(found: Iterations, workers: int) -> list[Figure]:
    ours = f"forebay.{workers}_workers.jobs_per_second"
    plural = "workers" if workers > 1 else "worker"
    rows = []
    for peer in JOBS[1:]:
        theirs = f"{peer.name}.{workers}_workers.jobs_per_second"
        rows.append(
            Figure(
                name=f"no-op jobs, {workers} {plural}, to {peer.said}",
                rounds=ratios(found, ours, theirs),
                aim=ARQ_AIMS[workers] if peer.name == "arq" else 1.0,
                is_floor=True,
                beside=f"{middle(found, ours, '/s')} / {middle(found, theirs, '/s')}",
            )
        )
    return rows


def _latencies(found: Iterations) -> list[Figure]:
    ours = "forebay.submit_to_start_median_ms"
    rows = []
    for peer in JOBS[1:]:
        theirs = f"{peer.name}.submit_to_start_median_ms"
        rows.append(
            Figure(
                name=f"submit to start on an idle worker, median, to {peer.said}",
                rounds=ratios(found, ours, theirs),
                aim=LATENCY_AIMS.get(peer.name),
                beside=f"{middle(found, ours, 'ms')} / {middle(found, theirs, 'ms')}",
            )
        )
    return rows


def figures(inputs: Inputs, found: Iterations) -> list[Figure]:
    """Return the figures of jobs with the aims of issues 5 and 15."""
    few, many = (f"{groups}_groups.admit_p95_ms" for groups in inputs.groups)
    return [
        *(figure for workers in WORKERS for figure in _rates(found, workers)),
        *_latencies(found),
        Figure(
            name=f"p95 of an admit cycle, {inputs.groups[1]} groups to {inputs.groups[0]}",
            rounds=ratios(found, many, few),
            aim=1.3,
            beside=f"{middle(found, many, 'ms')} / {middle(found, few, 'ms')}",
        ),
        Figure(
            name="ready_idle_gap: a free slot beside ready jobs, 99th percentile",
            rounds=of_rounds(found, "ready_idle_gap_p99_ms"),
            unit="ms",
            aim=50,
            beside=f"{middle(found, 'ready_idle_gaps', '')} gaps a round",
        ),
        Figure(
            name="the same, the longest",
            rounds=of_rounds(found, "ready_idle_gap_longest_ms"),
            unit="ms",
            aim=250,
            is_worst=True,
        ),
        Figure(
            name="queued task, beyond its payload: growth of used_memory",
            rounds=of_rounds(found, "queued_task_bytes"),
            unit="bytes",
            aim=1000,
        ),
    ]


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario on embedded servers.

    Raises:
        InvariantBrokenError: a job ran twice or never, or something was left behind.
    """
    for sentence in missing(JOBS):
        progress(f"jobs: {sentence}")
    with (
        EmbeddedServer() as server,
        redis.Redis.from_url(server.url) as client,
        Fleet(SUBMITTER + 1, serve, server.url) as fleet,
    ):
        turns = Turns(fleet, client, server.url, progress)

        def measure(number: int) -> dict[str, float]:
            found = _round(turns, inputs, number)
            found |= idle_gaps(
                fleet,
                client,
                server.url,
                submitter=SUBMITTER,
                bursts=inputs.bursts,
                jobs=inputs.burst_jobs,
            )
            client.flushall()
            found |= cycles(rotated(inputs.groups, number), inputs.cycles)
            if number == 0:  # bytes do not drift
                found["queued_task_bytes"] = queued_bytes(inputs.queued)
            return found

        iterations = repeat("jobs", inputs.rounds, measure, progress)

    return Outcome(
        inputs=asdict(inputs) | {"concurrency": CONCURRENCY},
        iterations=iterations,
        figures=figures(inputs, iterations),
        final_task_snapshots={"default": turns.snapshot},
    )
