"""What Forebay relies on inside arq is there, in the version that is installed (design 10)."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, serialize_job
from arq.worker import Worker

from forebay.workers.arq.job import _init_on_pool
from forebay.workers.arq.pool_redis import ForebayArqRedis
from forebay.workers.arq.prefetched_job import PrefetchedJob, PrefetchedJobPipeline
from forebay.workers.arq.serialization import dump_job, load_job
from forebay.workers.arq.worker import ForebayWorker

OVERRIDDEN = [
    "main",
    "heart_beat",
    "finish_job",
    "finish_failed_job",
    "handle_sig",
    "handle_sig_wait_for_completion",
    "close",
]


class RecordingPipeline:
    """A pipeline that notes what is called of it."""

    def __init__(self, pipeline, calls):
        self._pipeline = pipeline
        self._calls = calls

    async def __aenter__(self):
        await self._pipeline.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self._pipeline.__aexit__(*error)

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self._calls.append((name, *args))
            return getattr(self._pipeline, name)(*args, **kwargs)

        return call


class RecordingRedis(ArqRedis):
    """arq's own client, which notes what is called of each of its pipelines."""

    def __init__(self, pool):
        super().__init__(pool_or_conn=pool, job_serializer=dump_job, job_deserializer=load_job)
        self.pipelines = []

    def pipeline(self, *args, **kwargs):
        self.pipelines.append([])
        return RecordingPipeline(super().pipeline(*args, **kwargs), self.pipelines[-1])


async def echo(ctx):
    return ctx["job_try"]


async def test_arq_is_of_the_version_that_was_read():
    assert version("arq").startswith("0.28.")


@pytest.mark.parametrize("allow_abort_jobs", [False, True])
async def test_run_job_opens_with_the_questions_that_an_admission_answers(jobs, allow_abort_jobs):
    redis = RecordingRedis(jobs.connection_pool)
    worker = Worker(
        [echo],
        redis_pool=redis,
        queue_name=jobs.default_queue_name,
        handle_signals=False,
        allow_abort_jobs=allow_abort_jobs,
        job_serializer=dump_job,
        job_deserializer=load_job,
    )
    worker.ctx["redis"] = redis
    payload = serialize_job("echo", (), {}, None, 1, serializer=dump_job)
    await redis.set("arq:job:one", payload)
    await worker.run_job("one", 1)

    asked = [("get", "arq:job:one"), ("incr", "arq:retry:one"), ("expire", "arq:retry:one", 88400)]
    if allow_abort_jobs:
        asked.append(("zrem", "arq:abort", "one"))
    assert redis.pipelines[0] == [*asked, ("execute",)]
    pipeline = PrefetchedJobPipeline(PrefetchedJob(payload=payload, job_try=7, is_aborted=True))
    for name, *arguments in asked:
        getattr(pipeline, name)(*arguments)
    assert await pipeline.execute() == [payload, 7, True, 1][: len(asked)]
    await redis.delete(*(await redis.keys("arq:*")))


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_has_the_signature_of_the_installed_arq(name):
    ours = inspect.signature(getattr(ForebayWorker, name))
    theirs = inspect.signature(getattr(Worker, name))
    assert list(ours.parameters) == list(theirs.parameters)
    assert inspect.iscoroutinefunction(getattr(ForebayWorker, name)) == (
        inspect.iscoroutinefunction(getattr(Worker, name))
    )


def test_enqueue_job_takes_every_argument_of_arqs_own():
    ours = inspect.signature(ForebayArqRedis.enqueue_job).parameters
    theirs = inspect.signature(ArqRedis.enqueue_job).parameters
    assert list(theirs) == [name for name in ours if name in theirs]
    for name, parameter in theirs.items():
        assert (ours[name].kind, ours[name].default) == (parameter.kind, parameter.default)


def test_arqs_job_takes_what_it_took_and_asks_a_pool_for_the_rest():
    parameters = inspect.signature(inspect.unwrap(Job.__init__)).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "self": inspect.Parameter.empty,
        "job_id": inspect.Parameter.empty,
        "redis": inspect.Parameter.empty,
        "_queue_name": "arq:queue",
        "_deserializer": None,
    }
    assert inspect.signature(_init_on_pool).parameters.keys() == parameters.keys()
    assert Job.__init__ is _init_on_pool


def test_what_is_relied_upon_is_in_the_installed_arq():
    assert list(inspect.signature(Worker.run_job).parameters) == ["self", "job_id", "score"]
    source = inspect.getsource(Worker)
    for name in ("self.allow_pick_jobs", "self.job_tasks[job_id]", "self.in_progress_timeout_s"):
        assert name in source
