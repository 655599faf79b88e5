"""Bodies and exchanges that several threads use at the same time (design 03, *Transport*)."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

import forebay
from forebay.transports.exchange import LeasedExchange
from forebay.transports.lanes import Exchange, ManyLanes
from forebay.transports.rules import Rules
from forebay.transports.streams import BlockingBody, Dropped
from tests.contract.chat_domain import item

THREADS = 8


class Attempt:
    """Counts releases, as the controller's own attempt would send them."""

    lease = None

    def __init__(self) -> None:
        self.item = item()
        self.outcome: Any = None
        self.released: list[Any] = []

    def __exit__(self, *_: object) -> None:
        self.released.append(self.outcome.kind)


class StalledClassifier(forebay.DefaultClassifier):
    """Classifies when it is let."""

    def __init__(self) -> None:
        self.is_asked, self.goes_on = threading.Event(), threading.Event()

    def classify_response(self, *args: Any, **fields: Any) -> forebay.RequestReleaseOutcome:
        self.is_asked.set()
        assert self.goes_on.wait(10)
        return super().classify_response(*args, **fields)


def flowing(classifier: forebay.DefaultClassifier) -> tuple[LeasedExchange, Attempt, ManyLanes]:
    """Return an exchange whose answer's body is still to come."""
    attempt = Attempt()
    controller: Any = SimpleNamespace(attempt=lambda _: attempt, assert_held=lambda _: None)
    exchange = LeasedExchange(controller, attempt.item, Rules(classifier=classifier))
    lanes = ManyLanes(object)
    exchange.before_sending(lanes)
    exchange.answered(httpx2.Response(200, stream=httpx2.SyncByteStream()))
    return exchange, attempt, lanes


def test_a_body_that_is_read_and_closed_at_the_same_time_gives_its_lease_back_once() -> None:
    classifier = StalledClassifier()
    exchange, attempt, lanes = flowing(classifier)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(exchange.ended)
        assert classifier.is_asked.wait(10)
        exchange.closed()
        exchange.failed(ConnectionError())
        classifier.goes_on.set()
        reading.result(10)
    assert attempt.released == ["success"]
    assert len(lanes._free) == 1


def test_what_a_classifier_raises_that_is_no_exception_costs_no_lease() -> None:
    class Ends(forebay.DefaultClassifier):
        def classify_response(self, *_args: Any, **_fields: Any) -> forebay.RequestReleaseOutcome:
            raise KeyboardInterrupt

    exchange, attempt, _ = flowing(Ends())
    with pytest.raises(KeyboardInterrupt):
        exchange.ended()
    exchange.closed()
    assert attempt.released == ["unexpected_exception"]


class Inner:
    """A body of the HTTP library, which may fail to close."""

    def __init__(self, done: list[Any], name: Any, error: Exception | None = None) -> None:
        self._done, self._name, self._error = done, name, error

    def close(self) -> None:
        self._done.append(("connection", self._name))
        if self._error is not None:
            raise self._error


class Hanging:
    """A body whose reader hangs until it is closed, and then fails before the closing is done."""

    def __init__(self) -> None:
        self._is_closed, self._has_failed = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        assert self._is_closed.wait(10)
        try:
            raise ConnectionError
            yield b""
        finally:
            self._has_failed.set()

    def close(self) -> None:
        self._is_closed.set()
        assert self._has_failed.wait(10)


class Noting(Exchange):
    """Notes when it is closed, and what it is to run later."""

    def __init__(self, done: list[Any], name: Any) -> None:
        super().__init__()
        self.before_sending(ManyLanes(object))
        self.later: list[Any] = []
        self._done, self._name = done, name

    def soon(self, callback: Any) -> None:
        self.later.append(callback)

    def closed(self) -> None:
        self._done.append(("lease", self._name))
        super().closed()


def test_a_dropped_body_is_closed_later_its_connection_before_its_lease() -> None:
    done: list[Any] = []
    exchange = Noting(done, 1)
    body = BlockingBody(Inner(done, 1), exchange, Dropped())
    del body
    assert done == []
    (close,) = exchange.later
    close()
    assert done == [("connection", 1), ("lease", 1)]


def test_a_dropped_body_that_fails_to_close_holds_up_no_other() -> None:
    done: list[Any] = []
    dropped = Dropped()
    dropped.add(Inner(done, 1, OSError()), Noting(done, 1))
    dropped.add(Inner(done, 2), Noting(done, 2))
    dropped.close()
    assert [name for what, name in done if what == "lease"] == [1, 2]


def test_what_another_thread_closed_meanwhile_is_not_missed() -> None:
    class Stale(deque[Any]):
        def __bool__(self) -> bool:
            return True  # was true when it was asked

    dropped = Dropped()
    dropped._bodies = Stale()
    dropped.close()


def test_who_closes_what_another_thread_reads_is_no_failure_of_the_provider() -> None:
    exchange, attempt, _ = flowing(forebay.DefaultClassifier())
    body = BlockingBody(Hanging(), exchange, Dropped())
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(list, body)
        body.close()
        assert isinstance(reading.exception(10), ConnectionError)
    assert attempt.released == ["local_cancelled"]


@pytest.fixture
def _many_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_many_switches")
def test_threads_that_close_what_was_dropped_close_each_body_once() -> None:
    done: list[Any] = []
    dropped = Dropped()
    together = threading.Barrier(THREADS)

    def drop_and_close(thread: int) -> None:
        together.wait(10)
        for number in range(500):
            dropped.add(Inner(done, (thread, number)), Noting(done, (thread, number)))
            dropped.close()

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(drop_and_close, range(THREADS)))
    closed = [name for what, name in done if what == "connection"]
    assert len(closed) == len(set(closed)) == THREADS * 500
