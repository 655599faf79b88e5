"""One tenant floods the queue, another comes late with few jobs: who waits for whom?"""

from __future__ import annotations

import asyncio
import os

import forebay

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")


async def main() -> None:
    """Submit for both, wait, and say how far the flood was when the late tenant was done."""
    async with await forebay.create_pool(REDIS_URL, pool="app") as pool:
        flood, late = [
            await asyncio.gather(
                *(pool.enqueue_job("enrich", n, _group=group) for n in range(many))
            )
            for group, many in (("flood", 200), ("late", 10))
        ]
        flood_done, late_done = [
            [await job.result(timeout=60, poll_delay=0.05) for job in jobs if job is not None]
            for jobs in (flood, late)
        ]
    before = sum(done < max(late_done) for done in flood_done)
    print(f"late is done, all 10 jobs, after {before} of flood's 200")


if __name__ == "__main__":
    asyncio.run(main())
