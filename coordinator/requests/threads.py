"""Calls into one event loop from other threads: the bridge under every blocking face."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, TypeVarTuple

from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable
from forebay.coordinator.host_process import is_notebook_cell
from forebay.coordinator.logs import Logger
from forebay.coordinator.supervision import Guard

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

log = Logger("forebay.requests")

_LOOK_SECONDS: Final = 1.0
"""Interval at which a blocked thread checks that the loop it waits for still runs."""


class LoopEndedError(CoordinatorUnavailable):
    """The loop that should have answered has ended, and its connection with it."""

    def __init__(self) -> None:
        super().__init__(
            "the event loop of this connection has ended; connect anew, and leave the block of"
            " forebay.connect only when its threads are done."
        )


def refuse_to_block_a_loop(
    what: str, instead: str, needed: asyncio.AbstractEventLoop | None = None
) -> None:
    """Raise unless this thread is free to block.

    A cell of a notebook is: its loop stands still in each cell that is not async.

    Args:
        what: the blocking call.
        instead: what to use in its place.
        needed: the loop that is to answer the call; while it stands still nothing would.

    Raises:
        ConfigurationError: an event loop runs in this thread and would stand still meanwhile.
    """
    with contextlib.suppress(RuntimeError):
        if asyncio.get_running_loop() is not needed and is_notebook_cell():
            return
        raise ConfigurationError(
            f"{what} would block the event loop that runs in this thread; use {instead} here, or"
            f" call it in a thread of its own (asyncio.to_thread)."
        )


class LoopCaller:
    """Runs callbacks and awaitables on one event loop for other threads.

    Made on that loop, in the process that runs it; neither can be changed later.

    Attributes:
        loop: the event loop.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._process_id = os.getpid()
        self._guard = Guard(log)
        self._under_way: set[asyncio.Task[None]] = set()

    def require_own_loop(self) -> None:
        """Raise unless this is the loop itself.

        Raises:
            ConfigurationError: another event loop runs here, or none.
        """
        try:
            is_own = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            is_own = False
        if not is_own:
            raise ConfigurationError(
                "this was called off the event loop on which forebay.connect was entered; connect"
                " with `async with` on this loop too, or use acquire_sync, release_sync and"
                " `with attempt(item)` in a thread in which no loop runs."
            )

    def call(
        self,
        make: Callable[[], Awaitable[T]],
        *,
        instead: str,
        undo: Callable[[T], object] | None = None,
        timeout_seconds: float | None = None,
    ) -> T:
        """Run an awaitable on the loop, block until it is done, and return its result.

        Args:
            make: makes the awaitable, on the loop and in the caller's context variables.
            instead: what to use on an event loop, for the message of the refusal.
            undo: with it, a caller who is interrupted (`KeyboardInterrupt`) cancels the awaitable,
                and a result that crosses the interruption is handed to ``undo``, on the loop.
                Without it, what was begun goes on without its caller.
            timeout_seconds: longest time this thread is blocked; the awaitable goes on.

        Raises:
            ConfigurationError: called where an event loop runs, or in a forked child.
            CoordinatorUnavailable: the loop has ended, or ends meanwhile (`LoopEndedError`).
            TimeoutError: past ``timeout_seconds``.
            BaseException: whatever the awaitable raised, the same object.
        """
        refuse_to_block_a_loop("a blocking call", instead, self.loop)
        self._require_same_process()
        self._require_running()
        reply: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            # An interrupt may strike anywhere in here, so the reply is all that it needs.
            self._begin_soon(reply, make, undo)
            self._wait(reply, timeout_seconds)
        except BaseException:
            if undo is not None and not reply.cancel() and reply.exception() is None:
                self.send(undo, reply.result())
            raise
        return reply.result()

    def send(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Run a callback on the loop: at once on the loop itself, else as its next turn.

        Does nothing where the loop has ended, nor in a forked child, whose copy of it never turns.
        """
        try:
            is_here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            is_here = False
        if is_here:
            callback(*args)
        else:
            self.soon(callback, *args)

    def soon(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Run a callback as a later turn of the loop, from anywhere, from ``__del__`` too."""
        with contextlib.suppress(RuntimeError):  # closed
            self.loop.call_soon_threadsafe(lambda: self._guard.call(callback, *args))

    def _begin_soon(
        self,
        reply: concurrent.futures.Future[T],
        make: Callable[[], Awaitable[T]],
        undo: Callable[[T], object] | None,
    ) -> None:
        """Start the awaitable as the loop's next turn; to cancel the reply is to cancel it."""

        def begin() -> None:
            task = self.loop.create_task(self._answer(reply, make, undo))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            task.add_done_callback(lambda _task: _end_unanswered(reply))
            reply.add_done_callback(
                lambda reply: self.send(task.cancel) if reply.cancelled() else None
            )

        try:
            self.loop.call_soon_threadsafe(begin)
        except RuntimeError:  # closed
            raise LoopEndedError from None

    async def _answer(
        self,
        reply: concurrent.futures.Future[T],
        make: Callable[[], Awaitable[T]],
        undo: Callable[[T], object] | None,
    ) -> None:
        """Deliver an awaitable's result, or undo it if its caller has gone."""
        try:
            result = await make()
        except Exception as error:  # noqa: BLE001 - the caller's thread raises it
            if reply.set_running_or_notify_cancel():
                reply.set_exception(error)
        else:
            if reply.set_running_or_notify_cancel():
                reply.set_result(result)
            elif undo is not None:
                self._guard.call(undo, result)

    def _wait(self, reply: concurrent.futures.Future[T], timeout_seconds: float | None) -> None:
        """Block until the reply has arrived, or raise when the loop has ended without it."""
        ends_at = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            pause = min(_LOOK_SECONDS, max(0.0, ends_at - time.monotonic()))
            if concurrent.futures.wait([reply], timeout=pause).done:
                return
            if time.monotonic() >= ends_at:
                raise TimeoutError(f"no answer within {timeout_seconds:g} s; it is under way.")
            self._require_running()

    def _require_same_process(self) -> None:
        if os.getpid() != self._process_id:
            raise ConfigurationError(
                "this process was forked from the one that connected, and a forked child is no"
                " member; call forebay.connect in the child."
            )

    def _require_running(self) -> None:
        if not self.loop.is_running():
            raise LoopEndedError


def _end_unanswered(reply: concurrent.futures.Future[T]) -> None:
    """Set the reply of a task that was cancelled because its loop ends.

    A caller who gave up has cancelled the reply, and hears nothing.
    """
    if not reply.done() and reply.set_running_or_notify_cancel():
        reply.set_exception(LoopEndedError())
