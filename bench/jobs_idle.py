"""``ready_idle_gap``: how long a worker with a free slot stood beside ready jobs.

Rules: design 04, *From submit to finish*; design 08, *Scenarios*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from bench.figures import in_ms
from bench.harness import POLL_SECONDS, Fleet, InvariantBrokenError, new_runner
from bench.jobs_processes import Count, Start, Stop, Submit
from bench.peers.job_library import CONCURRENCY
from forebay.contracts.task_policies import TaskAdmissionConfig
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server_connection import ServerConnection, pid_of
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.idle_gaps import IdleGaps, p99

EVENTS: Final = pool_shard("default")["events"]
WORKERS: Final = (0, 1)
DEADLINE_SECONDS: Final = 60.0


async def _write_all_events(url: str) -> None:
    async with await ServerConnection.open(url) as connection:
        pool = TaskAdmissionController(connection)
        await pool.configure(TaskAdmissionConfig(events="full"))
        await pool.close()


def idle_gaps(
    fleet: Fleet, client: Any, url: str, *, submitter: int, bursts: int, jobs: int
) -> dict[str, float]:
    """Let two idle workers meet bursts of jobs; return their gaps, read from the pool's events.

    Args:
        fleet: whose first two processes work.
        client: of the server, which is emptied.
        url: of the server.
        submitter: the number of the process that submits.
        bursts: how many.
        jobs: of each burst, fewer than make the pool forget events.

    Raises:
        InvariantBrokenError: jobs of a burst never ended.
    """
    client.flushall()
    with new_runner() as runner:
        runner.run(_write_all_events(url))
    workers = {fleet.process_id(number) for number in WORKERS}
    gaps = IdleGaps(lambda member_id: CONCURRENCY if pid_of(member_id) in workers else 0)
    fleet.ask({number: Start(library="forebay") for number in WORKERS})
    last = "-"
    for burst in range(1, bursts + 1):
        fleet.ask({submitter: Submit(library="forebay", count=jobs)})
        deadline = time.monotonic() + DEADLINE_SECONDS
        while sum(fleet.ask({number: Count() for number in WORKERS})) < burst * jobs:
            if time.monotonic() > deadline:
                raise InvariantBrokenError(
                    f"a burst of {jobs} jobs did not end within {DEADLINE_SECONDS:g} s; this is a"
                    " defect, please report it."
                )
            time.sleep(POLL_SECONDS)
        for entry_id, fields in client.xrange(EVENTS, min=last):
            gaps.note({name.decode(): text.decode() for name, text in fields.items()})
            last = f"({entry_id.decode()}"
    fleet.ask({number: Stop() for number in WORKERS})
    measures: dict[str, Callable[[Sequence[float]], float]] = {
        "ready_idle_gap_p99_ms": p99,
        "ready_idle_gap_longest_ms": max,
    }
    return in_ms(gaps.seconds, measures) | {"ready_idle_gaps": float(len(gaps.seconds))}
