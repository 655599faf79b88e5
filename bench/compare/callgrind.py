"""A server under valgrind's callgrind, which counts the instructions of its ``FCALL``."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

from forebay.coordinator.server.embedded_files import find_server_binary

COUNTED_FUNCTION: Final = "fcallCommand"
"""The server's function that toggles counting, so that only calls are counted."""
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05


class CallgrindError(Exception):
    """The server cannot be run under callgrind, or nothing was counted; says why."""


@dataclass(slots=True)
class CountedServer:
    """A server under callgrind that runs until its block ends.

    Attributes:
        url: its ``unix://`` URL.
        instructions: of all its ``FCALL``, known once it has ended.
    """

    url: str
    instructions: int = 0


def why_not() -> str | None:
    """Return the reason why instructions cannot be counted, None if they can."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed, expected it on PATH (apt-get install valgrind)"
    return None


@contextlib.contextmanager
def counted_server() -> Iterator[CountedServer]:
    """Run the server that the library finds under callgrind, on a socket of its own.

    Raises:
        CallgrindError: it did not start, or callgrind saw no call.
    """
    with tempfile.TemporaryDirectory(prefix="fb-cg-", dir="/tmp") as folder:
        out, socket = Path(folder) / "callgrind.out", Path(folder) / "s"
        command = ["valgrind", "--tool=callgrind", f"--toggle-collect={COUNTED_FUNCTION}"]
        command += [f"--callgrind-out-file={out}", str(find_server_binary())]
        command += ["--port", "0", "--unixsocket", str(socket), "--dir", folder]
        command += ["--save", "", "--appendonly", "no"]
        log = Path(folder) / "log"
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            server = CountedServer(f"unix://{socket}")
            _wait_until_it_answers(server.url, process, log)
            yield server
            process.terminate()
            process.wait(STOP_SECONDS)
            server.instructions = _total(out, log)
        finally:
            process.kill()
            process.wait()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with redis.Redis.from_url(url) as client:
        while True:
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                return
            if process.poll() is not None or time.monotonic() > deadline:
                raise CallgrindError(
                    f"the server did not start under valgrind; its last line: {_last_line(log)}"
                )
            time.sleep(POLL_SECONDS)


def _total(out: Path, log: Path) -> int:
    text = out.read_text() if out.exists() else ""
    found = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    if found is None or int(found[1]) == 0:
        raise CallgrindError(
            f"callgrind saw no {COUNTED_FUNCTION} of the server; its last line: {_last_line(log)}"
        )
    return int(found[1])


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(none)"
