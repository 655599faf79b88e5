"""A short ``make chaos``: random kills and pills cost no innocent job (issue 13, *How well*)."""

from __future__ import annotations

import contextlib

from tests.chaos.fleet import Chaos, run


async def test_each_innocent_job_succeeds_under_random_kills_and_none_twice_at_once(
    redis_url, tmp_path
):
    chaos = Chaos(jobs=300, seconds=8.0, workers=3, kill_seconds=1.0, job_seconds=0.05)
    with contextlib.ExitStack() as stack:
        found = await run(redis_url, tmp_path, stack, chaos)
    assert found.is_as_promised, found
    assert found.succeeded == chaos.jobs
    assert found.kills > 0
