"""Helpers of commands: event loop, server for a command, worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from forebay.coordinator.server.address import EmbeddedAddress
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url

T = TypeVar("T")

DEFAULT_URL = "embedded://"

_COMMAND_LINE = Path(__file__).with_name("__main__.py")


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop where it is installed, else on asyncio's own loop."""
    with new_runner() as runner:
        return runner.run(main)


def new_runner() -> asyncio.Runner:
    """Return a runner on uvloop where it is installed, else on asyncio's own loop."""
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop  # noqa: PLC0415 - an extra

        return asyncio.Runner(loop_factory=uvloop.new_event_loop)
    return asyncio.Runner()


class Stopped(SystemExit):
    """A signal ends this process; its exit code is 128 and the signal's number.

    Attributes:
        signal: the first that came.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, SIGINT and SIGHUP raise `Stopped` in the block, wherever it was started.

    A script's background ignores SIGINT from its start on, which is undone; `nohup` ignores SIGHUP,
    which is what it is for, and stays.
    """

    def stop(number: int, _frame: object) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in _stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_stoppable(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `run_async`, in a block of `stoppable`.

    A signal cancels it, and it may clean up; a second SIGINT ends the process at once.

    Raises:
        Stopped: a signal came, and the coroutine has ended.
    """
    handlers = {number: signal.getsignal(number) for number in _stop_signals()}
    told: list[signal.Signals] = []

    def stop(number: signal.Signals, task: asyncio.Task[Any] | None) -> None:
        if told and number == signal.SIGINT:
            os._exit(128 + number)  # a person who asks twice; children end with this process
        told.append(number)
        if len(told) == 1 and task is not None:
            task.cancel()

    async def attended() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for number in handlers:
            loop.add_signal_handler(number, stop, number, task)
        try:
            return await main
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    try:
        return run_async(attended())
    except asyncio.CancelledError:
        if told:
            raise Stopped(told[0]) from None
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stop_signals() -> list[signal.Signals]:
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


@contextlib.contextmanager
def server_url(url: str, data_dir: Path | None = None) -> Iterator[str]:
    """Start an embedded server for the length of the block, or pass another URL through.

    ``embedded://`` alone is private to the command: nothing of an earlier one is in it. With a name
    or a folder it keeps its data.

    Args:
        url: as the user said it.
        data_dir: where ``embedded://`` alone keeps its data; None removes them at the end.
    """
    address = parse_url(url)
    if not isinstance(address, EmbeddedAddress):
        yield url
        return
    with EmbeddedServer(data_dir if url == DEFAULT_URL else address.data_dir) as server:
        yield server.url


def start_again(*arguments: str) -> subprocess.Popen[bytes]:
    """Start this very command line in a process of its own, as `start_worker` starts a worker.

    It is in a process group of its own, so that Ctrl-C reaches it by this process alone.

    Args:
        arguments: what is added to the command line.
    """
    return subprocess.Popen(
        [sys.executable, "-P", str(_COMMAND_LINE), *sys.argv[1:], *arguments, "--lifeline"],
        stdin=subprocess.PIPE,
        process_group=0,
    )


def start_worker(
    url: str, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a worker process of this installation; it ends with this process, however that ends.

    The program is run by its path and with ``-P``: the current folder is the user's and not on its
    ``sys.path``, so that no ``redis.py`` or ``forebay.py`` there is taken for the installed one.

    Its standard input is a pipe that nobody writes to: when this process is gone, it closes. Told
    to stop it gives its tasks back at once, unless ``arguments`` say otherwise.
    """
    own = ("--lifeline", "--grace", "0")
    return subprocess.Popen(
        [sys.executable, "-P", str(_COMMAND_LINE), "worker", "--url", url, *own, *arguments],
        stdin=subprocess.PIPE,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.DEVNULL,
    )


def stop_workers(workers: list[subprocess.Popen[bytes]], grace_seconds: float = 10.0) -> None:
    """Ask workers to stop, and end those that do not within the grace time."""
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    for worker in workers:
        if worker.stdin is not None:
            worker.stdin.close()
        try:
            worker.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
