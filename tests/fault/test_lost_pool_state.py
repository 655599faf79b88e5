"""A pool that loses state under load: each job runs once, or is told as lost.

Two workers in this process run jobs that end when the test lets them; a third connection plays the
programs. ``make lost-state`` loses every key of a pool in turn, a test of CI a few of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import redis
from arq.jobs import Job, ResultNotFound
from structlog.testing import capture_logs

import forebay
from forebay.contracts.errors import JobLost, TaskFailed
from forebay.coordinator.keys import POOL_KEYS, pool_shard
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.snapshots import audit_pool
from forebay.workers.arq.pool import JobPool, create_pool
from tests.support import wait_until
from tests.support_arq import Gate, result_of, working

KEYS: Final = pool_shard("default")
MEMBER: Final = forebay.MemberSettings(ttl_seconds=3.0, recheck_seconds=0.2)
LIMIT: Final = 4
FEW: Final = ("meta", "tasks", "leases", "fifo", "claims")
CHOSEN: Final = (
    tuple(kind for kind in POOL_KEYS if kind != "awaited")
    if os.environ.get("FOREBAY_LOST_STATE") == "all"
    else FEW
)


class Scene:
    """Two workers on one pool, with jobs that run, wait and are delayed."""

    def __init__(self, client: redis.Redis, observer: ServerConnection, jobs: JobPool) -> None:
        self.client = client
        self.observer = observer
        self.jobs = jobs
        self.gate = Gate()
        self.generation = b""

    async def fill(self) -> list[Job]:
        """Let as many jobs run as the limit allows, some wait, and one be delayed by an hour."""
        terms = {"_group": "tenant", "_weight": 2.5, "_resources": {"gpu": 1}}
        made = [await self._job(f"job{n}", **terms) for n in range(2 * LIMIT)]
        await self._job("later", _defer_by=3600, **terms)
        await wait_until(lambda: len(self.gate.inside) == LIMIT)
        return made

    async def _job(self, job_id: str, **terms: Any) -> Job:
        job = await self.jobs.enqueue_job("gated", _job_id=job_id, **terms)
        assert job is not None
        return job

    def lose(self, kind: str, garbage: str | None = None) -> None:
        """Delete a key, or put garbage in its place."""
        self.generation = self.client.hget(KEYS["meta"], "generation") or b""
        pipe = self.client.pipeline()
        pipe.delete(KEYS[kind])
        if garbage is not None:
            pipe.set(KEYS[kind], garbage)
        pipe.execute()

    async def is_rebuilt(self) -> bool:
        """Whether the pool has begun anew and its books agree."""
        with contextlib.suppress(redis.ResponseError, forebay.ForebayError):  # not found yet
            now = self.client.hget(KEYS["meta"], "generation")
            report = await audit_pool(self.observer, "default")
            return now not in {None, self.generation} and report.ok and not self._awaited()
        return False

    def _awaited(self) -> bool:
        return bool(self.client.exists(KEYS["awaited"]))

    def check(self, delayed: int = 1, waiting: int = LIMIT) -> None:
        """All is as it was: leases, delayed and waiting tasks, limits, weights, functions."""
        assert self.client.hlen(KEYS["leases"]) == LIMIT
        assert self.client.zcard(KEYS["delayed"]) == delayed
        assert self.client.zcard(KEYS["fifo"]) == waiting
        assert self.client.hget(KEYS["limits"], "gpu") == str(LIMIT).encode()
        assert self.client.hget(KEYS["ledger"], "gpu") == str(LIMIT).encode()
        assert self.client.hget(KEYS["functions"], "gated") == b"2"
        (group,) = self.client.hvals(KEYS["groups"])
        assert group.split(b"|")[0] == b"2.5"
        assert len(self.gate.inside) == LIMIT  # nobody began while all were held
        assert self.gate.cancelled == []


@pytest.fixture
async def scene(redis_url: str) -> AsyncIterator[Scene]:
    async with contextlib.AsyncExitStack() as stack:
        client = stack.enter_context(open_sync(parse_url(redis_url)))
        observer = await stack.enter_async_context(await ServerConnection.open(redis_url))
        jobs = await stack.enter_async_context(await create_pool(redis_url, settings=MEMBER))
        scene = Scene(client, observer, jobs)
        controller = TaskAdmissionController(observer)
        stack.push_async_callback(controller.close)
        await controller.set_limit("gpu", LIMIT)
        for _ in range(2):
            await stack.enter_async_context(
                working(redis_url, scene.gate.gated, member=MEMBER, max_jobs=LIMIT)
            )
        stack.callback(scene.gate.open.set)
        yield scene


@pytest.mark.parametrize("garbage", [None, "garbage"], ids=["deleted", "overwritten"])
async def test_each_key_may_go_while_jobs_run(scene: Scene, garbage: str | None) -> None:
    made = await scene.fill()
    for kind in CHOSEN:
        if garbage is None and not scene.client.exists(KEYS[kind]):
            continue
        if garbage is None and kind in {"idle", "pushes"}:
            continue  # nothing is lost: members ask again, and count anew
        scene.lose(kind, garbage)
        await wait_until(scene.is_rebuilt)
        scene.check()
    scene.gate.open.set()
    assert [await result_of(job) for job in made] == ["let go"] * len(made)
    assert sorted(scene.gate.inside) == sorted(job.job_id for job in made)


async def test_emptied_server_lets_running_jobs_end_and_tells_of_the_others(scene: Scene) -> None:
    made = await scene.fill()
    scene.lose("fifo")  # so that no generation is as before
    scene.client.flushall()
    await wait_until(scene.is_rebuilt)
    waiting = [job for job in made if job.job_id not in scene.gate.inside]
    for job in waiting:
        with pytest.raises(JobLost, match="the server has lost its state since"):
            await result_of(job)
        with pytest.raises(ResultNotFound):  # of a handle that never knew of the job
            await result_of(scene.jobs.job(job.job_id))
    scene.gate.open.set()
    for job in made:
        if job not in waiting:
            assert await result_of(job) == "let go"
    assert len(scene.gate.inside) == LIMIT
    assert scene.gate.cancelled == []


async def test_job_whose_payload_is_gone_is_told_as_lost(scene: Scene) -> None:
    made = await scene.fill()
    (lost, *_others) = [job for job in made if job.job_id not in scene.gate.inside]
    with capture_logs() as logs:
        scene.client.delete(f"arq:job:{lost.job_id}")
        scene.lose("ready")
        with pytest.raises(TaskFailed, match=r"JobLost: job .* was lost while it waited"):
            await result_of(lost)
        await wait_until(scene.is_rebuilt)
    assert [log["task_id"] for log in logs if log["event"] == "job_lost"] == [lost.job_id]
    assert {log["reason"] for log in logs if log["event"] == "generation_changed"} == {
        "damaged: ready"
    }
    scene.check(waiting=LIMIT - 1)
