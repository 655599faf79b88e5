"""What a job raises reaches arq as something that arq takes.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import asyncio
import gc
import types
import weakref

import pytest
from arq.cron import cron
from arq.worker import JobExecutionFailed, Retry, func

from forebay.workers.arq.contained_jobs import contained, run_to_end


class HoardError(MemoryError):
    """Holds what its frames hold."""


class Held:
    """Something that a job holds."""


def job_of(coroutine, noted=None):
    return contained(func(coroutine, name="job"), lambda: None, lambda: noted.append(1)).coroutine


async def test_a_job_that_is_no_exception_is_raised_as_arqs_own_failure():
    async def job(ctx):
        raise SystemExit(3)

    with pytest.raises(JobExecutionFailed, match=r"SystemExit \(3\)") as raised:
        await job_of(job)({})
    assert isinstance(raised.value.__cause__, SystemExit)


@pytest.mark.parametrize("error", [ValueError("no"), Retry(), asyncio.CancelledError()], ids=repr)
async def test_what_arq_takes_is_left_as_it_is(error):
    async def job(ctx):
        raise error

    noted = []
    with pytest.raises(type(error)) as raised:
        await job_of(job, noted)({})
    assert (raised.value, noted) == (error, [])


async def test_only_a_cancellation_by_others_is_noted():
    noted, begun = [], asyncio.Event()

    async def job(ctx):
        begun.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(job_of(job, noted)({}))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert noted == [1]


def test_a_job_that_is_closed_with_its_loop_closes_quietly():
    @types.coroutine
    def wait():
        yield

    async def job(ctx):
        await wait()

    coroutine = job_of(job)({})
    coroutine.send(None)
    coroutine.close()  # raises where the job's GeneratorExit is taken for a failure of its own


async def test_what_a_job_holds_that_ran_out_of_memory_is_free_before_its_error_is():
    held = []

    async def job(ctx):
        mine = Held()
        held.append(weakref.ref(mine))
        raise HoardError

    with pytest.raises(HoardError) as raised:
        await job_of(job)({})
    gc.collect()
    assert raised.value is not None
    assert held[0]() is None


def test_a_cron_job_is_contained_and_keeps_its_terms():
    async def job(ctx):
        raise SystemExit

    given = cron(job, hour=3, job_id="nightly", max_tries=7)
    made = contained(given, lambda: None, lambda: None)
    assert (made.hour, made.job_id, made.max_tries, made.name) == (3, "nightly", 7, given.name)
    assert given.coroutine is job
    with pytest.raises(JobExecutionFailed):
        asyncio.run(made.coroutine({}))


def test_a_loop_is_run_to_the_end_of_a_task_whatever_stops_it():
    loop = asyncio.new_event_loop()

    async def leave():
        raise SystemExit(0)

    async def main():
        child = asyncio.create_task(leave())
        with pytest.raises(SystemExit):
            await child
        loop.call_soon(loop.stop)
        await asyncio.sleep(0.01)
        return "done"

    assert run_to_end(loop, loop.create_task(main()), goes_on=lambda: True) == "done"
    with pytest.raises(SystemExit):
        run_to_end(loop, loop.create_task(leave()), goes_on=lambda: True)
    stopped = loop.create_task(asyncio.sleep(0.01))
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="stopped"):
        run_to_end(loop, stopped, goes_on=lambda: False)
    loop.run_until_complete(stopped)
    loop.close()
