"""A worker records its health where both checks look, and deletes what it alone wrote."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support import wait_until
from tests.support_arq import working

POOLS, ARQS = "fb:{pool:default}:queue:health-check", "arq:queue:health-check"


async def echo(ctx, value=None):
    return value


async def has(jobs, *keys):
    return await jobs.exists(*keys) == len(keys)


async def test_the_record_lies_at_the_pools_key_and_at_arqs(redis_url, jobs):
    async with working(redis_url, echo, health_check_interval=100):
        await wait_until(lambda: has(jobs, POOLS, ARQS))
        assert await jobs.get(POOLS) == await jobs.get(ARQS)
        assert 90_000 < await jobs.pttl(ARQS) <= 101_000
    assert not await jobs.exists(POOLS, ARQS)


async def test_a_worker_that_stops_leaves_the_record_of_another(redis_url, jobs):
    async with working(redis_url, echo):
        await wait_until(lambda: has(jobs, POOLS, ARQS))
        async with working(redis_url, echo) as other:
            await wait_until(lambda: other._health._written)
            for key in (POOLS, ARQS):
                await jobs.set(key, "of another")
        assert await jobs.get(POOLS) == await jobs.get(ARQS) == b"of another"
    assert await jobs.get(POOLS) == b"of another"
    await jobs.delete(POOLS, ARQS)


async def test_a_record_that_could_not_be_written_is_written_at_the_next_beat(
    redis_url, jobs, monkeypatch
):
    async with working(redis_url, echo, health_check_interval=3600) as worker:
        await wait_until(lambda: has(jobs, POOLS))
        write, refused = worker.pool.psetex, asyncio.Event()

        async def refuse(*args):
            refused.set()
            raise RedisConnectionError("away")

        monkeypatch.setattr(worker.pool, "psetex", refuse)
        worker._last_health_check = 0
        await jobs.delete(POOLS, ARQS)
        await refused.wait()
        assert not await jobs.exists(POOLS)
        monkeypatch.setattr(worker.pool, "psetex", write)
        await wait_until(lambda: has(jobs, POOLS, ARQS))


@pytest.mark.parametrize("key", [POOLS, ARQS])
async def test_a_key_of_another_type_is_written_over(redis_url, jobs, key):
    await jobs.lpush(key, "odd")
    async with working(redis_url, echo) as worker:
        await wait_until(lambda: is_recorded(worker, jobs))
        assert await jobs.type(key) == b"string"
    assert not await jobs.exists(key)


async def is_recorded(worker, jobs):
    """Whether both keys are written and the worker has noted it; before, it deletes nothing."""
    return worker._health._written and await has(jobs, POOLS, ARQS)


async def test_a_worker_that_may_not_write_at_arqs_key_says_so_once_and_goes_on(
    redis_url, jobs, caplog
):
    admin = jobs
    rules = ("~fb:*", "~arq:job:*", "~arq:result:*", "~arq:in-progress:*", "~arq:retry:*")
    await admin.execute_command(
        *("ACL", "SETUSER", "narrow", "reset", "on", ">pw", *rules, "~arq:abort", "&fb:*", "+@all")
    )
    url = redis_url.replace("unix://", "unix://narrow:pw@", 1)
    try:
        async with working(url, echo, health_check_interval=0.01) as worker:
            await wait_until(lambda: has(jobs, POOLS))
            await wait_until(lambda: worker._health._copy_key is None)
    finally:
        await admin.execute_command("ACL", "DELUSER", "narrow")
    told = [one for one in caplog.messages if "health_record_not_copied" in one]
    assert len(told) == 1
    assert ARQS in told[0]
