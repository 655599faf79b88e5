"""Threads that are interrupted, a loop that stands still, a process that forks.

Rules: design 03; design 06.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

import forebay
from tests.contract.chat_domain import MODEL, counts, is_idle, item, joined, see


class Interrupted(BaseException):
    """What the test's signal raises in the main thread, as Ctrl-C raises KeyboardInterrupt."""


@contextmanager
def interrupting(when: Callable[[], object]) -> Iterator[None]:
    """Interrupt the main thread, wherever it blocks, as soon as ``when`` returns."""

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    def watch() -> None:
        when()
        signal.pthread_kill(main, signal.SIGUSR1)

    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(Interrupted):
            yield
    finally:
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def test_interrupted_acquire_leaves_no_waiter(redis_url: str) -> None:
    with joined(redis_url, 1) as requests:
        held = requests.acquire(item())
        with interrupting(lambda: see(redis_url, lambda seen: seen.waiters == 1)):
            requests.acquire(item())
        see(redis_url, lambda seen: seen.waiters == 0)
        assert requests.release(held, forebay.SUCCESS).released
        see(redis_url, is_idle)


def test_lease_that_crosses_the_interruption_is_given_back(redis_url: str) -> None:
    asked = threading.Event()
    may_end = threading.Event()

    async def main() -> None:
        async with forebay.connect(redis_url) as requests:
            await requests.register(MODEL, "mine", 1)

            async def acquire_whatever_happens() -> forebay.RequestAdmissionLease:
                asked.set()
                try:
                    return await asyncio.shield(asyncio.Event().wait())  # type: ignore[return-value]
                except asyncio.CancelledError:
                    return await requests.acquire(item())

            caller.set_result(
                lambda: requests.caller.call(
                    acquire_whatever_happens, instead="", undo=requests.return_unused
                )
            )
            await asyncio.to_thread(may_end.wait)

    caller: Future[Callable[[], object]] = Future()
    loop = threading.Thread(target=asyncio.run, args=(main(),))
    loop.start()
    call = caller.result()
    try:
        with interrupting(asked.wait):
            call()
        seen = see(redis_url, lambda seen: seen.granted == 1 and is_idle(seen))
        assert counts(seen) == {"local_cancelled": 1}
    finally:
        may_end.set()
        loop.join()


def test_release_past_its_deadline_is_deferred_and_still_under_way(redis_url: str) -> None:
    with joined(redis_url, 1) as requests:
        lease = requests.acquire(item())
        may_turn = threading.Event()
        requests._controller.caller.send(may_turn.wait, 10.0)  # the loop stands still
        late = requests.release(lease, forebay.SUCCESS, timeout_seconds=0.01)
        assert (late.released, late.reason) == (False, forebay.ReleaseReason.DEFERRED)
        may_turn.set()
        assert counts(see(redis_url, is_idle)) == {"success": 1}


FORKED = """
import os, signal, sys, forebay
from tests.contract.chat_domain import MODEL, item
def in_child(requests):
    signal.alarm(20)
    try:
        requests.acquire(item())
    except forebay.ConfigurationError as error:
        assert "forked" in str(error), error
        return
    raise AssertionError
status = 0
with forebay.connect(sys.argv[1]) as requests:
    requests.register(MODEL, "mine", 1)
    attempt = requests.attempt(item())
    with attempt:
        child = os.fork()
        if child == 0:
            in_child(requests)
    if child != 0:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with requests.attempt(item()):
            pass
        print("parent goes on")
sys.stdout.flush()
os._exit(status)
"""


def test_forked_child_is_told_to_connect_anew_and_takes_nothing_from_its_parent(
    redis_url: str,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, redis_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in ("", *sys.path) if p)},
    )
    assert (done.returncode, done.stdout) == (0, "parent goes on\n"), done.stderr
    assert counts(see(redis_url, is_idle)) == {"success": 2}
