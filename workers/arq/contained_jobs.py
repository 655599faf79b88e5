"""Contains jobs: an exception, or a stopped event loop, ends one job alone.

Rules: design 04, *From submit to finish*.

arq takes an ``Exception`` and a cancellation of a job's; anything else would pass through it and
end the worker. asyncio ends the whole loop where any task raises SystemExit or KeyboardInterrupt.
"""

from __future__ import annotations

import asyncio
import functools
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

from arq.cron import CronJob
from arq.worker import Function, JobExecutionFailed, Worker

from forebay.coordinator.logs import Logger
from forebay.workers.arq.serialization import text_of

T = TypeVar("T")
AnyFunction = TypeVar("AnyFunction", Function, CronJob)

Job = Callable[..., Coroutine[Any, Any, Any]]

log: Final = Logger("forebay.worker")


def contained(
    function: AnyFunction, on_begun: Callable[[], None], on_cancelled: Callable[[], None]
) -> AnyFunction:
    """Return a worker function whose jobs raise only exceptions that arq handles.

    Args:
        function: arq's function or cron job; it stays as it is.
        on_begun: called in a job's own context before its first step.
        on_cancelled: called in a job's own context where somebody else cancelled its task.

    Returns:
        The same with another coroutine: what is no ``Exception`` is raised as arq's
        ``JobExecutionFailed``. A cancellation stays one: arq runs the job again, or aborts it.
    """
    return replace(function, coroutine=_contained(function.coroutine, on_begun, on_cancelled))


def _contained(
    coroutine: Job, on_begun: Callable[[], None], on_cancelled: Callable[[], None]
) -> Job:
    @functools.wraps(coroutine)
    async def run(*args: Any, **kwargs: Any) -> Any:
        task = _current_task()
        on_begun()
        try:
            return await coroutine(*args, **kwargs)
        except MemoryError as error:
            # What the job's frames hold is missing to its neighbours as long as the error is kept.
            traceback.clear_frames(error.__traceback__)
            raise
        except Exception:
            raise
        except asyncio.CancelledError:
            if task is not None and task.cancelling():
                on_cancelled()
            raise
        except BaseException as error:
            if isinstance(error, GeneratorExit) and (task is None or _current_task() is not task):
                raise  # the loop is gone, and this coroutine is being closed
            raise JobExecutionFailed(
                f"the job raised {type(error).__qualname__} ({text_of(error)}), expected an"
                " Exception: a job ends itself alone, not its worker; raise one, or return."
            ) from error

    return run


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs
        return None


def run_to_end(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[T], *, goes_on: Callable[[], bool]
) -> T:
    """Run a loop until a task is done, even if others stop the loop.

    A child task of a job that raises SystemExit or KeyboardInterrupt, and ``loop.stop()``, end the
    loop's run, which is then begun again where it was: the task that awaits the child is told.

    Args:
        loop: not running.
        task: one of its.
        goes_on: whether what ends the loop may be a job's doing.

    Returns:
        What the task returns.

    Raises:
        BaseException: what the task raised; or what ended the loop where it does not go on.
    """
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
            if task.done() or loop.is_closed() or not goes_on():
                raise
            log.warning(
                "loop_begun_again",
                error=type(error).__qualname__,
                remedy="a job's own task or callback ended the loop; see that none of them exits",
            )


async def run_by_arq(worker: Worker, job_id: str, score: int) -> None:
    """Let arq run a job; an exception that would end the loop comes from a hook.

    Args:
        worker: arq's.
        job_id: of the job.
        score: of the job in arq's queue, in Unix milliseconds.

    Raises:
        RuntimeError: a hook raised what is no Exception, such as SystemExit.
    """
    try:
        await worker.run_job(job_id, score)
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise RuntimeError(
            f"a hook of the worker raised {type(error).__qualname__}, expected an Exception; it"
            " ends the worker."
        ) from error
