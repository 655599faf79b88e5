"""arq functions on a Forebay pool: jobs, results, retries and hooks keep arq's sense (spec 04)."""

from __future__ import annotations

import asyncio
import contextlib
import inspect

import pytest
from arq.jobs import Job, JobStatus, serialize_job
from arq.utils import timestamp_ms
from arq.worker import Retry, Worker, func

from contracts.errors import TaskFailed
from contracts.identity import TaskGroupKey, TaskGroupKind, TaskGroupSpec
from contracts.tasks import SchedulableTask
from coordinator.coordinator import Coordinator
from coordinator.tasks.snapshots import audit_pool
from tests.support import wait_until
from workers.arq_worker import ForebayWorker
from workers.serialization import dump_job, load_job

GROUP = TaskGroupSpec(key=TaskGroupKey(kind=TaskGroupKind.LOCAL, identity=("tests",)))


class Bench:
    """A worker in this process, and what its functions and hooks noted."""

    def __init__(self):
        self.notes = []
        self.tries = []
        self.gate = asyncio.Event()

    async def add(self, ctx, left, right):
        return left + right

    async def fail(self, ctx):
        raise ValueError("no such customer")

    async def mend(self, ctx):
        self.tries.append(ctx["job_try"])
        if ctx["job_try"] < 3:
            raise Retry(defer=0.01)
        return "mended"

    async def wait_at_gate(self, ctx):
        await self.gate.wait()

    async def follow(self, ctx):
        job = await ctx["redis"].enqueue_job("add", 20, 1, _job_id="followed")
        return job.job_id

    async def on_startup(self, ctx):
        self.notes.append("startup")

    async def on_job_start(self, ctx):
        self.notes.append(f"start {ctx['job_id']}")

    async def after_job_end(self, ctx):
        self.notes.append(f"end {ctx['job_id']}")

    async def on_shutdown(self, ctx):
        self.notes.append("shutdown")

    async def open(self, url):
        functions = (self.add, self.fail, self.mend, self.wait_at_gate, self.follow)
        self.coordinator = await Coordinator.open(url)
        self.worker = ForebayWorker(
            self.coordinator,
            functions=tuple(func(function, name=function.__name__) for function in functions),
            handle_signals=False,
            poll_delay=0.02,
            on_startup=self.on_startup,
            on_shutdown=self.on_shutdown,
            on_job_start=self.on_job_start,
            after_job_end=self.after_job_end,
        )
        self._working = asyncio.create_task(self.worker.async_run())
        await wait_until(lambda: self.worker._puller is not None)
        await self.worker.tasks_admission.set_limit("submission", 100, holder="tests")

    async def close(self):
        await self.worker.close()
        with contextlib.suppress(asyncio.CancelledError):
            await self._working

    async def submit(self, function, *args, job_id=None, delay_seconds=0.0):
        payload = serialize_job(function, args, {}, None, timestamp_ms(), serializer=dump_job)
        task = SchedulableTask(
            task_id=job_id or function, payload=payload, group=GROUP, delay_seconds=delay_seconds
        )
        assert await self.worker.tasks_admission.queue.submit(task)
        return self.job(task.task_id)

    def job(self, job_id):
        return Job(
            job_id,
            self.worker.pool,
            _queue_name=self.worker.queue_name,
            _deserializer=load_job,
        )

    async def statuses(self, *jobs):
        return [await job.status() for job in jobs]


@pytest.fixture
async def bench(redis_url):
    bench = Bench()
    await bench.open(redis_url)
    yield bench
    if bench.worker._pool is not None:
        await wait_until(lambda: not bench.worker._running)
        assert (await audit_pool(bench.coordinator, "default")).ok
        await bench.close()


async def result(job):
    return await job.result(timeout=5.0, poll_delay=0.01)


async def test_a_result_is_read_with_arqs_own_job(bench):
    job = await bench.submit("add", 2, 3)
    assert await result(job) == 5
    info = await job.result_info()
    assert (info.function, info.args, info.success, info.job_try) == ("add", [2, 3], True, 1)


async def test_a_failure_is_raised_as_task_failed_with_type_message_and_traceback(bench):
    job = await bench.submit("fail")
    with pytest.raises(TaskFailed) as failure:
        await result(job)
    assert failure.value.error_type == "ValueError"
    assert failure.value.error_message == "no such customer"
    assert "in fail" in failure.value.traceback_text


async def test_an_unknown_function_fails_its_job_and_not_the_worker(bench):
    job = await bench.submit("absent")
    with pytest.raises(TaskFailed, match="absent"):
        await result(job)
    assert await result(await bench.submit("add", 1, 1)) == 2


async def test_a_retry_runs_the_job_again_until_it_succeeds(bench):
    assert await result(await bench.submit("mend")) == "mended"
    assert bench.tries == [1, 2, 3]


async def test_status_follows_a_job_from_deferred_to_complete(bench):
    later = await bench.submit("add", 1, 1, job_id="later", delay_seconds=3600.0)
    gates = [await bench.submit("wait_at_gate", job_id=f"gate{n}") for n in range(10)]
    await wait_until(lambda: len(bench.worker._running) == bench.worker.max_jobs)
    queued = await bench.submit("add", 1, 1, job_id="queued")
    assert await bench.statuses(later, gates[0], queued) == [
        JobStatus.deferred,
        JobStatus.in_progress,
        JobStatus.queued,
    ]
    bench.gate.set()
    assert await result(queued) == 2
    for gate in gates:
        await result(gate)
    assert set(await bench.statuses(*gates, queued)) == {JobStatus.complete}
    assert await bench.statuses(later) == [JobStatus.deferred]
    assert await bench.statuses(bench.job("absent")) == [JobStatus.not_found]


async def test_a_job_enqueues_another_through_its_context(bench):
    assert await result(await bench.submit("follow")) == "followed"
    assert await result(bench.job("followed")) == 21


async def test_hooks_run_around_the_worker_and_each_job(bench):
    await result(await bench.submit("add", 1, 1))
    await wait_until(lambda: "end add" in bench.notes)
    await bench.close()
    assert bench.notes == ["startup", "start add", "end add", "shutdown"]


async def test_a_closed_worker_gives_its_job_back_at_no_cost_and_shuts_down(bench, redis_url):
    job = await bench.submit("wait_at_gate")
    await wait_until(lambda: bench.worker.job_tasks)
    await bench.close()
    assert bench.notes[-1] == "shutdown"

    again = Bench()
    again.gate.set()
    await again.open(redis_url)
    try:
        job = again.job(job.job_id)
        await result(job)
        assert (await job.result_info()).job_try == 1
    finally:
        await again.close()


@pytest.mark.parametrize(
    "name",
    [
        "heart_beat",
        "finish_job",
        "finish_failed_job",
        "handle_sig",
        "handle_sig_wait_for_completion",
        "close",
    ],
)
def test_what_is_overridden_has_the_signature_of_the_installed_arq(name):
    ours = inspect.signature(getattr(ForebayWorker, name))
    theirs = inspect.signature(getattr(Worker, name))
    assert list(ours.parameters) == list(theirs.parameters)
    assert inspect.iscoroutinefunction(getattr(ForebayWorker, name)) == (
        inspect.iscoroutinefunction(getattr(Worker, name))
    )


def test_what_is_relied_upon_is_in_the_installed_arq():
    assert list(inspect.signature(Worker.run_job).parameters) == ["self", "job_id", "score"]
    source = inspect.getsource(Worker)
    for name in ("self.allow_pick_jobs", "self.job_tasks[job_id]", "self.in_progress_timeout_s"):
        assert name in source
