"""Supervision of background tasks, timers, threads and callbacks: failures are logged.

Rules: design 01, *Invariants*.

An exception that nobody foresaw is logged once with its traceback. Then a task is begun again after
a pause, and a callback's caller goes on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from redis.backoff import EqualJitterBackoff

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.coordinator.logs import Logger

T = TypeVar("T")

_BACKOFF: Final = EqualJitterBackoff(cap=1.0, base=0.02)
MOST_DOUBLINGS: Final = 16
"""Most doublings of a pause; 2**1024 would overflow a float."""

CANCEL_AGAIN_SECONDS: Final = 0.5
"""Interval at which a cancellation is repeated, as a library may have swallowed it."""

SAID_AGAIN_SECONDS: Final = 60.0
"""Shortest interval at which a repeated exception is logged."""


def pause_seconds(failures: int, most_doublings: int = MOST_DOUBLINGS) -> float:
    """Return how long to pause after so many failures in a row: jittered, a second at most.

    Args:
        failures: how many.
        most_doublings: how often 0.02 s is doubled at most; fewer where a try costs little.
    """
    return float(_BACKOFF.compute(min(failures, most_doublings)))


class Guard:
    """Runs callbacks whose exceptions must not reach the caller, and logs these exceptions.

    Every thread may use it.

    Args:
        log: where the exceptions are logged, as ``unexpected_exception``.
        fields: what each of these log lines says besides, such as the shard.
        clock: seconds that only grow.
    """

    def __init__(
        self, log: Logger, *, clock: Callable[[], float] = time.monotonic, **fields: Any
    ) -> None:
        self._log = log
        self._clock = clock
        self._fields = fields
        self._said_at: dict[tuple[str, type[BaseException]], float] = {}

    def call(self, callback: Callable[..., object], *args: Any) -> bool:
        """Call a function; return False where it raised, which is then logged."""
        try:
            callback(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller goes on
            self.note(name_of(callback), error)
            return False
        return True

    def note(self, during: str, error: BaseException) -> None:
        """Log an exception, unless a similar one was logged a short while ago.

        Args:
            during: what raised it, such as a function's name.
            error: the exception.
        """
        now, like = self._clock(), (during, type(error))
        if now - self._said_at.get(like, float("-inf")) >= SAID_AGAIN_SECONDS:
            self._said_at[like] = now
            self._log.unexpected("unexpected_exception", error, during=during, **self._fields)

    def note_recovery(self, during: str) -> None:
        """Log that what raised before has now succeeded; its next exception is logged at once."""
        self._said_at = {like: at for like, at in self._said_at.items() if like[0] != during}
        self._log.warning("recovered", during=during, **self._fields)


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Run a blocking function in a thread; in this one if the program is ending.

    The interpreter ends its executors before it calls what `atexit` was given.
    """
    if threading.main_thread().is_alive():
        return await asyncio.to_thread(function, *arguments)
    return function(*arguments)


def name_of(function: Callable[..., object]) -> str:
    """Return the name under which a function's exceptions are logged."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))


class Background:
    """A background task that restarts after failures until it is done or stopped.

    An unexpected exception, or a cancellation from outside, is logged and followed by a pause that
    grows with each failure in a row.

    Args:
        name: of the task, and in the log.
        work: one try; it returns when nothing is left to be done.
        guard: logs what the work raises.
        done: called each time the work is done.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Coroutine[Any, Any, None]],
        guard: Guard,
        *,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._work = work
        self._guard = guard
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._failures = 0
        self._is_stopped = False

    @property
    def is_running(self) -> bool:
        """Whether the task runs, or waits to be tried again."""
        return self._task is not None or self._again is not None

    def start(self) -> None:
        """Begin the work, unless it is under way or was stopped."""
        if not self.is_running and not self._is_stopped:
            self._begin()

    async def stop(self) -> None:
        """End the work for good; returns when the task has ended."""
        self._is_stopped = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        task = self._task
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_AGAIN_SECONDS)

    def _begin(self) -> None:
        self._again = None
        self._task = self._loop.create_task(self._work(), name=self._name)
        # Not in the work itself: a task that is cancelled before its first step runs none of it.
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None and not (self._is_stopped and task.cancelled()):
            self._guard.note(self._name, error)
        if self._is_stopped:
            return
        if error is not None:
            self._failures += 1
            self._again = self._loop.call_later(pause_seconds(self._failures), self._begin)
            return
        if self._failures:
            self._failures = 0
            self._guard.note_recovery(self._name)
        self._guard.call(self._done)


async def outcome_of(task: asyncio.Task[T], what: str) -> T:
    """Await a shared task's result; cancelling the caller does not cancel the task.

    Args:
        task: the task.
        what: what it does, for the message.

    Raises:
        CoordinatorUnavailable: the task was cancelled, and this waiter was not.
        BaseException: what the task raised.
    """
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        waiter = asyncio.current_task()
        if not task.cancelled() or (waiter is not None and waiter.cancelling()):
            raise
        raise CoordinatorUnavailable(
            f"{what} was cancelled from outside before it was done; try again."
        ) from None
