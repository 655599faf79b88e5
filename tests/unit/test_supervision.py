"""Background work goes on, and what it raises is said once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.coordinator import supervision
from forebay.coordinator.logs import Logger
from forebay.coordinator.supervision import (
    SAID_AGAIN_SECONDS,
    Background,
    Guard,
    outcome_of,
    pause_seconds,
)
from tests.support import wait_until

log = Logger("forebay.test")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def raise_value_error(*_: Any) -> None:
    raise ValueError


def raise_type_error(*_: Any) -> None:
    raise TypeError


# -- pauses


def tries_after(away_seconds: float) -> float:
    """Return when a member tries first once the server is back, from its return on."""
    at, failures = 0.0, 0
    while at < away_seconds:
        failures += 1
        at += pause_seconds(failures)
    return at - away_seconds


def test_500_members_come_back_one_by_one_after_a_long_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("redis.backoff.random", random.Random(16))
    tries = [tries_after(60.0) for _ in range(500)]
    assert max(tries) <= 1.0
    assert max(Counter(int(at / 0.1) for at in tries).values()) <= 125


@pytest.mark.parametrize("failures", [1, 10, 1024, 10**6])
def test_a_pause_is_bounded_after_any_number_of_failures(failures: int) -> None:
    assert 0 < pause_seconds(failures) <= 1.0


def test_pauses_grow() -> None:
    assert max(pause_seconds(1) for _ in range(100)) < min(pause_seconds(6) for _ in range(100))


# -- callbacks


def test_a_callback_that_raises_is_logged_and_its_caller_goes_on() -> None:
    guard = Guard(log, shard="s")
    with capture_logs() as logs:
        assert not guard.call(raise_value_error, "a payload")
    (entry,) = logs
    assert (entry["event"], entry["log_level"], entry["shard"]) == (
        "unexpected_exception",
        "error",
        "s",
    )
    assert (entry["during"], entry["error_type"]) == ("raise_value_error", "ValueError")
    assert entry["stack"].startswith("Traceback")
    assert "a payload" not in str(entry)


def test_a_callback_that_raises_nothing_is_called_with_its_arguments() -> None:
    heard: list[int] = []
    assert Guard(log).call(heard.extend, [1, 2])
    assert heard == [1, 2]


def test_an_exception_that_comes_again_and_again_is_said_seldom_and_another_one_at_once() -> None:
    clock = Clock()
    guard = Guard(log, clock=clock)
    with capture_logs() as logs:
        for _ in range(1000):
            guard.call(raise_value_error)
        guard.call(raise_type_error)
        clock.now = SAID_AGAIN_SECONDS
        guard.call(raise_value_error)
    assert [entry["error_type"] for entry in logs] == ["ValueError", "TypeError", "ValueError"]


def test_an_interrupt_is_nobodys_to_hold_back() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guard(log).call(interrupt)


# -- tasks


class Work:
    """Work that ends in one way after the other; the last one is its success.

    Attributes:
        tries: how often it was begun.
        ended: how often it was said to be done.
    """

    def __init__(self, *ends: BaseException) -> None:
        self.tries = 0
        self.ended = 0
        self._ends = list(ends)
        self.go = asyncio.Event()
        self.go.set()

    async def once(self) -> None:
        self.tries += 1
        await self.go.wait()
        if self._ends:
            raise self._ends.pop(0)

    def done(self) -> None:
        self.ended += 1


def background(work: Work) -> Background:
    return Background("forebay-test", work.once, Guard(log), done=work.done)


@pytest.mark.parametrize("error", [ValueError, OSError, asyncio.CancelledError, MemoryError])
async def test_work_that_ends_unexpectedly_is_begun_again_until_it_is_done(error: Any) -> None:
    work = Work(error(), error(), error())
    task = background(work)
    with capture_logs() as logs:
        task.start()
        assert task.is_running
        await wait_until(lambda: not task.is_running)
    assert (work.tries, work.ended) == (4, 1)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("unexpected_exception", "error"),
        ("recovered", "warning"),
    ]


async def test_a_second_series_of_failures_is_said_again() -> None:
    work = Work(ValueError())
    task = background(work)
    with capture_logs() as logs:
        for _ in range(2):
            task.start()
            await wait_until(lambda: not task.is_running)
            work._ends.append(ValueError())
    assert [entry["event"] for entry in logs] == ["unexpected_exception", "recovered"] * 2


async def test_work_that_was_cancelled_before_its_first_step_is_begun_again() -> None:
    work = Work()
    task = background(work)
    task.start()
    assert task._task is not None
    task._task.cancel()
    await wait_until(lambda: not task.is_running)
    assert (work.tries, work.ended) == (1, 1)


async def test_work_that_is_under_way_or_awaits_its_next_try_is_not_begun_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "pause_seconds", lambda _failures: 3600.0)
    work = Work(ValueError())
    task = background(work)
    for _ in range(3):
        task.start()
    await wait_until(lambda: task._again is not None)
    for _ in range(3):
        task.start()
    assert work.tries == 1
    task._begin()  # as the timer does
    await wait_until(lambda: not task.is_running)
    assert work.tries == 2


async def test_stopped_work_ends_for_good_and_says_nothing() -> None:
    work = Work()
    work.go.clear()
    task = background(work)
    with capture_logs() as logs:
        task.start()
        await wait_until(lambda: work.tries == 1)
        await task.stop()
        assert not task.is_running
        task.start()
        assert not task.is_running
    assert (work.ended, logs) == (0, [])


async def test_work_that_is_stopped_between_two_tries_is_not_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "pause_seconds", lambda _failures: 3600.0)
    task = background(work := Work(ValueError()))
    task.start()
    await wait_until(lambda: task._again is not None)
    await task.stop()
    assert not task.is_running
    assert work.tries == 1


async def test_who_is_cancelled_while_stopping_hears_of_it() -> None:
    stubborn = asyncio.Event()

    async def ignore_the_first_cancellation() -> None:
        try:
            await stubborn.wait()
        except asyncio.CancelledError:
            await stubborn.wait()

    task = Background("forebay-test", ignore_the_first_cancellation, Guard(log))
    task.start()
    await asyncio.sleep(0)
    stopping = asyncio.create_task(task.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await task.stop()
    assert not task.is_running


# -- a task that others wait for


async def test_a_waiter_who_is_cancelled_cancels_no_task_that_others_wait_for() -> None:
    go = asyncio.Event()

    async def answer() -> int:
        await go.wait()
        return 42

    task = asyncio.create_task(answer())
    waiters = [asyncio.create_task(outcome_of(task, "answering")) for _ in range(2)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiters[0]
    go.set()
    assert await waiters[1] == 42


async def test_waiters_of_a_task_that_was_cancelled_get_a_typed_error() -> None:
    task = asyncio.create_task(asyncio.sleep(3600))
    waiter = asyncio.create_task(outcome_of(task, "sleeping"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(CoordinatorUnavailable, match="sleeping was cancelled"):
        await waiter
