"""A turn of jobs: no-op jobs of one worker, and submits to an idle one."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from statistics import median
from typing import Any, Final

import redis

from bench import jobs
from bench.compare.callgrind import counted_server
from bench.compare.counters import counted
from bench.compare.turn_micro import PATIENT
from bench.figures import in_ms
from bench.harness import Fleet, InvariantBrokenError, new_runner
from bench.jobs_processes import serve
from bench.peers.forebay_jobs import GROUPS
from bench.peers.job_library import CONCURRENCY, noop, started_at
from forebay import create_pool, open_worker
from forebay.coordinator.server.embedded import EmbeddedServer

FULL: Final = jobs.Inputs(jobs=2_000, rounds=1, singles=60, pause_seconds=0.01)
SMOKE: Final = replace(jobs.SMOKE, jobs=100)
COUNTED_JOBS: Final = 200
LONGEST_SECONDS: Final = 120.0


def timed(inputs: jobs.Inputs) -> dict[str, Any]:
    """Measure the rate of one worker, what a job costs the server, and single submits."""
    measures: dict[str, float] = {}
    with (
        EmbeddedServer() as server,
        redis.Redis.from_url(server.url) as client,
        Fleet(jobs.SUBMITTER + 1, serve, server.url) as fleet,
    ):
        turns = jobs.Turns(fleet, client, server.url, sys.stderr.write)
        turns.rate("forebay", 1, max(2, inputs.jobs // 10))  # does not count
        before = counted(client)
        rate = turns.rate("forebay", 1, inputs.jobs)
        measures |= counted(client).since(before).per(inputs.jobs, "jobs")
        if rate is not None:
            measures["jobs.jobs_per_second"] = rate
        latencies = turns.latencies("forebay", inputs)
        measures |= in_ms(latencies, {"jobs.submit_to_start_median_ms": median})
    return {"measures": measures, "final_task_snapshot": {"default": turns.snapshot}}


async def _run_jobs(url: str, count: int) -> None:
    """Submit jobs, then run them by a worker of this process."""
    async with await create_pool(url, settings=PATIENT) as pool:
        for number in range(count):
            group = GROUPS[number % len(GROUPS)]
            await pool.enqueue_job("noop", _group=group)
    worker = await open_worker(
        url, member=PATIENT, functions=(noop,), max_jobs=CONCURRENCY, handle_signals=False
    )
    running = asyncio.create_task(worker.async_run())
    deadline = time.monotonic() + LONGEST_SECONDS
    while len(started_at) < count:
        if time.monotonic() > deadline:
            raise InvariantBrokenError(
                f"{len(started_at)} of {count} jobs were started within {LONGEST_SECONDS:g} s."
            )
        await asyncio.sleep(0.05)
    await worker.close()
    await asyncio.gather(running, return_exceptions=True)


def instructions(inputs: jobs.Inputs) -> dict[str, Any]:
    """Count the instructions of a job, from its submit to its result."""
    count = min(inputs.jobs, COUNTED_JOBS)
    with counted_server() as server, new_runner() as runner:
        runner.run(_run_jobs(server.url, count))
    return {"measures": {"jobs.instructions": server.instructions / count}}
