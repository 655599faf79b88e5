"""The server is told away when it is silent, not while it answers call after call (ADR 0026)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.operations import Cancel
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.backlog import OPERATIONS_PER_CALL
from forebay.coordinator.shard.batches import Batches
from forebay.coordinator.supervision import Guard

TIMEOUT_SECONDS = 10.0
ANSWER_SECONDS = 1.0
CALLS = 30


class Clock:
    """A loop's clock and its timers; what is called soon is called at once.

    Attributes:
        now: loop time.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, Callable[[], Any]]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., Any], *args: Any) -> None:
        call(*args)

    def call_at(self, at: float, call: Callable[..., Any], *args: Any) -> object:
        self._timers.append((at, lambda: call(*args)))
        return object()

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what falls due."""
        end = self.now + seconds
        while due := sorted((timer for timer in self._timers if timer[0] <= end), key=first):
            self._timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][1]()
        self.now = end


def first(timer: tuple[float, Any]) -> float:
    return timer[0]


class Server:
    """Batches, what their callers were told, and a server that answers when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.errors: list[tuple[float, Any]] = []
        self.answered = 0
        self._membership = cast("Membership", Member())
        self._batches = Batches(
            "rq:acme/m",
            cast("Any", Silent()),
            Guard(Logger("test"), shard="rq:acme/m"),
            timeout_seconds=TIMEOUT_SECONDS,
            on_overdue=lambda: CoordinatorUnavailable("away"),
        )
        for part in (self._batches, self._batches._deadlines):
            part._loop = cast("asyncio.AbstractEventLoop", self.clock)

    def submit(self, count: int) -> None:
        for number in range(count):
            self._batches.add(Cancel(f"a{number}"), self._told)

    def _told(self, outcome: Any) -> bool:
        if isinstance(outcome, CoordinatorUnavailable):
            self.errors.append((self.clock.now, outcome))
        else:
            self.answered += 1
        return True

    def send(self) -> None:
        assert self._batches.take_next(self._membership)

    def answer(self) -> None:
        operations = self._batches.end_call()
        results = [["cancelled"]] * len(operations)
        reply = json.dumps([0, 0, "g", results, [], 0]).encode()
        self._batches.take_reply(reply, operations, between=lambda: None)


class Member:
    member_id = "m"


class Silent:
    def on_next_wake(self, _seconds: float | None) -> None:
        pass


@pytest.fixture
async def server() -> Server:
    return Server()


async def test_an_operation_behind_many_calls_is_not_told_that_the_server_is_away(
    server: Server,
) -> None:
    server.submit(CALLS * OPERATIONS_PER_CALL)
    for _ in range(CALLS):
        server.send()
        server.clock.advance(ANSWER_SECONDS)
        server.answer()
    assert server.clock.now - 1000 > 2 * TIMEOUT_SECONDS
    assert (server.errors, server.answered) == ([], CALLS * OPERATIONS_PER_CALL)


async def test_a_server_that_falls_silent_is_told_away_a_fifth_of_the_timeout_later(
    server: Server,
) -> None:
    server.submit(CALLS * OPERATIONS_PER_CALL)
    for _ in range(CALLS - 1):
        server.send()
        server.clock.advance(ANSWER_SECONDS)
        server.answer()
    silent_since = server.clock.now
    server.send()
    server.clock.advance(TIMEOUT_SECONDS)
    assert [round(at - silent_since, 6) for at, _error in server.errors] == [
        TIMEOUT_SECONDS / 5
    ] * OPERATIONS_PER_CALL


@pytest.mark.parametrize("is_sent", [True, False], ids=["under way", "not sent"])
async def test_a_silent_server_is_told_away_after_the_timeout(
    server: Server, is_sent: bool
) -> None:
    server.submit(1)
    if is_sent:
        server.send()
    server.clock.advance(3 * TIMEOUT_SECONDS)
    assert [at - 1000.0 for at, _error in server.errors] == [TIMEOUT_SECONDS]
