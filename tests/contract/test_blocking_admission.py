"""Threads and synchronous programs on a real server (design 02, *Requests*; design 03, *Order*)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import forebay
from tests.contract.chat_domain import CHAT, MODEL, counts, is_idle, item, joined, see

Reason = forebay.RequestDenialReason
HOUR = 3600.0


class Gauge:
    """How many are inside at once, and at most were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        yield
        with self._lock:
            self._inside -= 1


def test_synchronous_program_has_every_operation(redis_url: str) -> None:
    with joined(redis_url, 2) as requests:
        first = requests.acquire(item())
        second = requests.try_acquire(item())
        assert isinstance(second, forebay.RequestAdmissionLease)
        third = requests.try_acquire(item())
        assert isinstance(third, forebay.RequestAdmissionDenied)
        assert third.reason is Reason.NO_CAPACITY
        assert requests.release(first, forebay.SUCCESS).released
        again = requests.release(first, forebay.SUCCESS)
        assert again.reason is forebay.ReleaseReason.DUPLICATE
        assert requests.release(second, forebay.SUCCESS, timeout_seconds=HOUR).released
        with requests.attempt(item()) as attempt:
            assert attempt.lease.lease_id == attempt.item.attempt_id
        assert requests.limited(CHAT)(str.upper)("a") == "A"
        assert counts(see(redis_url, is_idle)) == {"success": 4}


def test_last_release_before_the_block_is_left_keeps_its_outcome(redis_url: str) -> None:
    with joined(redis_url, 2) as requests, requests.attempt(item()) as attempt:
        attempt.rate_limited(retry_after_seconds=70.0)
    assert counts(see(redis_url, is_idle)) == {"rate_limited": 1}


def test_threads_share_a_cap_and_all_are_served(redis_url: str) -> None:
    gauge = Gauge()
    with joined(redis_url, 2) as requests, ThreadPoolExecutor(8) as threads:

        @requests.limited(CHAT)
        def call(number: int) -> int:
            with gauge.inside():
                return number

        assert list(threads.map(call, range(80))) == list(range(80))
        assert gauge.most <= 2
        assert counts(see(redis_url, is_idle)) == {"success": 80}


async def test_threads_of_an_async_program_share_its_controller(redis_url: str) -> None:
    gauge = Gauge()
    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 2)

        def call() -> None:
            with requests.attempt(item()), gauge.inside():
                pass

        await asyncio.gather(*(asyncio.to_thread(call) for _ in range(40)))
        assert gauge.most <= 2
        lease = await asyncio.to_thread(requests.acquire_sync, item())
        released = await asyncio.to_thread(requests.release_sync, lease, forebay.SUCCESS)
        assert released.released
    seen = await asyncio.to_thread(see, redis_url, is_idle)
    assert counts(seen) == {"success": 41}


def test_exception_of_a_block_in_a_thread_reaches_its_caller_and_is_classified(
    redis_url: str,
) -> None:
    raised = ConnectionResetError("reset")
    with joined(redis_url, 2) as requests:
        with pytest.raises(ConnectionResetError) as caught, requests.attempt(item()):
            raise raised
        assert caught.value is raised
        with pytest.raises(SystemExit), requests.attempt(item()):
            raise SystemExit
        assert counts(see(redis_url, is_idle)) == {"provider_failure": 1, "local_cancelled": 1}


# -- never on a loop


async def test_nothing_blocks_a_running_loop(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 2)
        blocking = forebay.BlockingRequestAdmissionController(requests)
        lease = await requests.acquire(item())
        calls: list[Callable[[], object]] = [
            lambda: requests.acquire_sync(item()),
            lambda: requests.release_sync(lease, forebay.SUCCESS),
            lambda: requests.attempt(item()).__enter__(),
            lambda: requests.limited(CHAT)(str.upper)("a"),
            lambda: blocking.acquire(item()),
            lambda: blocking.try_acquire(item()),
            lambda: blocking.register(MODEL, "other", 2),
            lambda: forebay.connect(redis_url).__enter__(),
        ]

        def refused() -> None:
            for call in calls:
                with pytest.raises(forebay.ConfigurationError, match=r"would block the event loop"):
                    call()

        async def on_another_loop() -> None:
            refused()

        await asyncio.to_thread(asyncio.run, on_another_loop())
        refused()
        assert (await requests.release(lease, forebay.SUCCESS)).released
    seen = await asyncio.to_thread(see, redis_url, is_idle)
    assert counts(seen) == {"success": 1}


# -- ending


def test_leaving_the_block_denies_waiting_threads_with_shutdown(redis_url: str) -> None:
    with ThreadPoolExecutor(3) as threads:
        with joined(redis_url, 1) as requests:
            held = requests.acquire(item())
            waiting = [threads.submit(requests.acquire, item()) for _ in range(3)]
            see(redis_url, lambda seen: seen.waiters == 3)
        for future in waiting:
            error = future.exception(timeout=10)
            assert isinstance(error, forebay.RequestAdmissionError)
            assert error.denied.reason is Reason.SHUTDOWN
    see(redis_url, is_idle)
    with pytest.raises(forebay.RequestAdmissionError) as caught:
        requests.acquire(item())
    assert caught.value.denied.reason is Reason.SHUTDOWN
    denied = requests.try_acquire(item())
    assert isinstance(denied, forebay.RequestAdmissionDenied)
    assert denied.reason is Reason.SHUTDOWN
    assert requests.release(held, forebay.SUCCESS).reason is forebay.ReleaseReason.STALE_LEASE
    with pytest.raises(forebay.CoordinatorUnavailable, match="connect anew"):
        requests.register(MODEL, "mine", 1)
    assert "forebay-loop" not in {thread.name for thread in threading.enumerate()}


def test_block_that_outlives_its_connection_ends_with_its_own_exception(redis_url: str) -> None:
    with joined(redis_url, 1) as requests:
        attempt = requests.attempt(item())
        attempt.__enter__()
    attempt.__exit__(ValueError, ValueError("mine"), None)
    see(redis_url, is_idle)


def test_connection_of_a_synchronous_program_is_entered_once(redis_url: str) -> None:
    connection = forebay.connect(redis_url)
    with connection:
        pass
    with pytest.raises(forebay.ConfigurationError, match="entered before"):
        connection.__enter__()


def test_server_that_does_not_answer_is_named_and_no_thread_is_left() -> None:
    with pytest.raises(forebay.CoordinatorUnavailable, match="127"):
        forebay.connect("redis://127.0.0.1:1").__enter__()
    assert "forebay-loop" not in {thread.name for thread in threading.enumerate()}
