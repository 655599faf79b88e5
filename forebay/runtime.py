"""What commands share: an event loop, a server for the length of a command, worker processes."""

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

from forebay.coordinator.address import EmbeddedAddress, parse_url
from forebay.coordinator.embedded import EmbeddedServer

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


@contextlib.contextmanager
def server_url(url: str) -> Iterator[str]:
    """Start an embedded server for the length of the block, or pass another URL through.

    ``embedded://`` alone is private to the command: nothing of an earlier one is in it. With a name
    or a folder it keeps its data.
    """
    address = parse_url(url)
    if not isinstance(address, EmbeddedAddress):
        yield url
        return
    with EmbeddedServer(None if url == DEFAULT_URL else address.data_dir) as server:
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
