"""Workers that are killed at random while they run jobs (issue 13, *How well*)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Final

from forebay.workers.arq.pool import JobPool, create_pool
from tests.chaos.app import STARTS, TWICE
from tests.support import wait_until
from tests.support_arq import check_books
from tests.support_arq_fleet import ArqFleet

APP: Final = "tests.chaos.app.WorkerSettings"
PILLS: Final = ("exit", "segfault", "raise")
ENDS_PROCESS: Final = ("exit", "segfault")
SETTLE_SECONDS: Final = 120.0
"""Far above what remains to be done when the kills are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """What a run is given.

    Attributes:
        jobs: innocent ones, which come evenly over the seconds.
        seconds: of kills.
        workers: processes, of ten slots each.
        kill_seconds: mean time between two kills.
        job_seconds: mean time of a job.
        seed: of times and victims.
    """

    jobs: int = 5_000
    seconds: float = 60.0
    workers: int = 4
    kill_seconds: float = 1.5
    job_seconds: float = 0.1
    seed: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a run.

    Attributes:
        succeeded: innocent jobs with a result that says so.
        failed: ids of innocent jobs that failed or have no result.
        pills: pill -> the type of error that its result holds.
        twice_at_once: jobs that were begun while they ran in a process that lived.
        begun_again: innocent jobs that were begun more than once, as their process died.
        kills: processes that were killed from outside.
        ends: exit codes of all processes that ended, with how often.
        seconds: until the last result.
    """

    succeeded: int
    failed: tuple[str, ...]
    pills: dict[str, str]
    twice_at_once: tuple[str, ...]
    begun_again: int
    kills: int
    ends: dict[int, int]
    seconds: float

    @property
    def is_as_promised(self) -> bool:
        """Whether each innocent job succeeded, none twice at once, and each pill failed alone."""
        expected = dict.fromkeys(ENDS_PROCESS, "WorkerLost") | {"raise": "JobExecutionFailed"}
        return not self.failed and not self.twice_at_once and self.pills == expected


async def run(url: str, folder: Path, stack: contextlib.ExitStack, chaos: Chaos) -> Found:
    """Run jobs and kill their workers; the books must agree in the end.

    Args:
        url: an empty server.
        folder: for the fleet.
        stack: ends the processes.
        chaos: how much of everything.
    """
    fleet, draw = ArqFleet(url, folder, stack), random.Random(chaos.seed)
    async with (
        await create_pool(url) as jobs,
        fleet.supervised(chaos.workers, "--slots", "10", settings=APP) as supervised,
    ):
        await wait_until(lambda: _members(fleet) >= chaos.workers, timeout=SETTLE_SECONDS)
        began = time.monotonic()
        killing = asyncio.create_task(_kill(supervised.workers, chaos, draw))
        await _submit(jobs, chaos, draw)
        kills = await killing
        ids = [*PILLS, *(f"i{number}" for number in range(chaos.jobs))]
        keys = [f"arq:result:{job_id}" for job_id in ids]

        async def is_over() -> bool:
            return await jobs.exists(*keys) == len(keys)

        await wait_until(is_over, timeout=SETTLE_SECONDS)
        took = time.monotonic() - began
        results = {result.job_id: result for result in await jobs.all_job_results()}
        starts = await jobs.hgetall(STARTS)
        twice = await jobs.lrange(TWICE, 0, -1)
    await check_books(url)
    innocent = {job_id: one for job_id, one in results.items() if job_id not in PILLS}
    return Found(
        succeeded=sum(one.success for one in innocent.values()),
        failed=tuple(job_id for job_id, one in innocent.items() if not one.success),
        pills={how: results[how].result.error_type for how in PILLS},
        twice_at_once=tuple(job_id.decode() for job_id in twice),
        begun_again=sum(int(n) > 1 for name, n in starts.items() if name.decode() in innocent),
        kills=kills,
        ends=dict(Counter(supervised.ends)),
        seconds=round(took, 1),
    )


def _members(fleet: ArqFleet) -> int:
    return int(fleet.client.zcard(b"fb:{pool:default}:idle"))


async def _submit(jobs: JobPool, chaos: Chaos, draw: random.Random) -> None:
    """Enqueue the jobs evenly over the seconds, the pills among them."""
    began = time.monotonic()
    pills = dict(zip(draw.sample(range(chaos.jobs // 2), len(PILLS)), PILLS, strict=True))
    for number in range(chaos.jobs):
        ahead = began + number * chaos.seconds / chaos.jobs - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        if number in pills:
            await jobs.enqueue_job("pill", pills[number], _job_id=pills[number])
        seconds = draw.expovariate(1 / chaos.job_seconds)
        await jobs.enqueue_job("innocent", seconds, _job_id=f"i{number}", _group=f"g{number % 7}")


async def _kill(workers: list[Popen[bytes]], chaos: Chaos, draw: random.Random) -> int:
    """Kill one worker after the other at random; return how many."""
    ends_at, kills = time.monotonic() + chaos.seconds, 0
    while (pause := draw.expovariate(1 / chaos.kill_seconds)) < ends_at - time.monotonic():
        await asyncio.sleep(pause)
        draw.choice(workers).kill()
        kills += 1
    return kills
