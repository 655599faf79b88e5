"""Give 40 jobs to arq and wait for their results."""

from __future__ import annotations

import asyncio

from app import WorkerSettings
from arq import create_pool


async def main() -> None:
    """Submit, wait, and say how many were answered."""
    pool = await create_pool(WorkerSettings.redis_settings)
    jobs = [await pool.enqueue_job("summarise", f"page {number}") for number in range(40)]
    results = [await job.result(timeout=60, poll_delay=0.1) for job in jobs if job is not None]
    await pool.aclose()
    print(f"{len([result for result in results if result])} results")


if __name__ == "__main__":
    asyncio.run(main())
