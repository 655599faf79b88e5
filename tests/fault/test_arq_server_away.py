"""A server that is away for a while ends no worker (design 04, *From submit to finish*)."""

from __future__ import annotations

import asyncio

import pytest

from forebay.contracts.settings import MemberSettings
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import result_of, working
from tests.support_proxy import FaultyProxy

SETTINGS = MemberSettings(ttl_seconds=3600.0, recheck_seconds=0.1)


async def test_a_worker_that_aborts_jobs_outlives_a_server_that_is_away(redis_url, monkeypatch):
    async def add(ctx, one, other):
        return one + other

    async with (
        FaultyProxy(redis_url) as proxy,
        await create_pool(redis_url) as jobs,
        working(proxy.url, add, member=SETTINGS, allow_abort_jobs=True) as worker,
    ):
        looks = []
        look = worker._cancel_aborted_jobs

        async def counted():
            await look()
            looks.append(1)

        monkeypatch.setattr(worker, "_cancel_aborted_jobs", counted)
        proxy.refuse()
        before = len(looks)
        await wait_until(lambda: len(looks) > before + 2)
        await proxy.accept()
        assert await result_of(await jobs.enqueue_job("add", 1, 2)) == 3


@pytest.mark.parametrize("name", ["on_job_start", "on_job_end"])
@pytest.mark.parametrize("asks", ["get", "enqueue_job"])
async def test_a_hook_that_asks_the_pools_server_while_that_is_away_puts_its_job_back(
    redis_url, name, asks
):
    inside, is_away, tries = asyncio.Event(), asyncio.Event(), []

    async def hook(ctx):
        if ctx["job_id"] != "one":
            return
        tries.append(ctx["job_try"])
        if len(tries) == 1:
            inside.set()
            await is_away.wait()
        await getattr(ctx["redis"], asks)("echo")

    async def add(ctx, one, other):
        return one + other

    async def echo(ctx):
        return 1

    settings = MemberSettings(ttl_seconds=3600.0, recheck_seconds=0.1, call_timeout_seconds=1.5)
    async with (
        FaultyProxy(redis_url) as proxy,
        await create_pool(redis_url) as jobs,
        working(proxy.url, add, echo, member=settings, **{name: hook}) as worker,
    ):
        job = await jobs.enqueue_job("add", 1, 2, _job_id="one")
        await inside.wait()
        proxy.refuse()
        is_away.set()
        await wait_until(lambda: not worker.scheduler.running)
        assert not worker.main_task.done()
        await proxy.accept()
        assert await result_of(job) == 3
    assert tries == [1, 2]
