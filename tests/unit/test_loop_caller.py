"""Threads never wait for a loop that has ended (design 03, *Errors people see*)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.contracts.errors import CoordinatorError
from forebay.coordinator.requests.threads import LoopCaller, LoopEndedError

SECRET = "a secret"  # no line of a traceback quotes it, only the message does


class LoopThread:
    """A loop in a thread that ends when told to, whoever waits for it."""

    def __init__(self) -> None:
        self._made: Future[LoopCaller] = Future()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.caller = self._made.result()

    def _run(self) -> None:
        async def make() -> None:
            self._made.set_result(LoopCaller())

        making = self.loop.create_task(make())
        self.loop.run_forever()
        assert making.done()

    def cancel_all(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            self.loop.call_soon_threadsafe(task.cancel)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def close(self) -> None:
        if self.loop.is_running():
            self.stop()
        if not self.loop.is_closed():
            self.cancel_all()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


@pytest.fixture
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


async def never() -> None:
    await asyncio.Event().wait()


def blocked(caller: LoopCaller) -> Future[None]:
    """What becomes of a thread that waits for what never comes."""
    outcome: Future[None] = Future()
    begun = threading.Event()

    def make() -> Awaitable[None]:
        begun.set()
        return never()

    def wait() -> None:
        try:
            outcome.set_result(caller.call(make, instead=""))
        except CoordinatorError as error:
            outcome.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    assert begun.wait(5)
    return outcome


@pytest.mark.parametrize("how", [LoopThread.cancel_all, LoopThread.stop])
def test_thread_does_not_wait_for_a_loop_that_has_ended(
    loop_thread: LoopThread, how: Callable[[LoopThread], None]
) -> None:
    outcome = blocked(loop_thread.caller)
    how(loop_thread)
    assert isinstance(outcome.exception(timeout=10), LoopEndedError)


def test_stopped_loop_and_closed_loop_are_refused(loop_thread: LoopThread) -> None:
    made: list[str] = []

    async def make() -> None:
        made.append("what nobody waits for")

    loop_thread.stop()
    with pytest.raises(LoopEndedError):
        loop_thread.caller.call(make, instead="")
    loop_thread.close()
    with pytest.raises(LoopEndedError):
        loop_thread.caller.call(make, instead="")
    loop_thread.caller.send(made.append, "what a closed loop cannot run")
    assert made == []


def test_thread_whose_call_is_cancelled_before_its_first_step_gets_a_typed_error(
    loop_thread: LoopThread,
) -> None:
    """The loop goes on, so nothing else would end the wait."""
    loop = loop_thread.loop
    create = loop.create_task

    def create_cancelled(coroutine: Any, **how: Any) -> asyncio.Task[Any]:
        task = create(coroutine, **how)
        task.cancel()
        return task

    loop.create_task = create_cancelled  # type: ignore[method-assign,assignment]
    try:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(loop_thread.caller.call, never, instead="")
            assert isinstance(waiting.exception(timeout=10), LoopEndedError)
    finally:
        del loop.create_task


def raise_value_error(*_: object) -> None:
    raise ValueError(SECRET)


def test_a_callback_from_another_thread_that_raises_is_said(loop_thread: LoopThread) -> None:
    done = threading.Event()
    with capture_logs() as logs:
        loop_thread.caller.send(raise_value_error)
        loop_thread.caller.send(done.set)
        assert done.wait(10)
    assert [entry["event"] for entry in logs] == ["unexpected_exception"]
    assert SECRET not in str(logs)


def test_an_undo_that_raises_is_said(loop_thread: LoopThread) -> None:
    reply: Future[str] = Future()
    reply.cancel()

    async def answer() -> str:
        return "too late"

    with capture_logs() as logs:
        asyncio.run_coroutine_threadsafe(
            loop_thread.caller._answer(reply, answer, raise_value_error), loop_thread.loop
        ).result(10)
    assert [entry["event"] for entry in logs] == ["unexpected_exception"]
