"""Providers as child processes: started, waited for, counted by their own logs, stopped."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from bench.harness import InvariantBrokenError
from forebay.contracts.errors import ConfigurationError

START_SECONDS: Final = 300.0
STOP_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.1

_HERE = Path(__file__).parent
_LISTENING = "listening on "


def free_port() -> int:
    """Return a free port of the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _find(program: str, package: str) -> str:
    # Debian has these in a folder that is on root's PATH alone.
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ConfigurationError(
            f"{program} is not installed, expected it on PATH or in /usr/sbin, as one of the"
            f" providers that nobody here wrote; on Debian: apt-get install {package}."
        )
    return found


def find_nginx() -> str:
    """Return nginx' path.

    Raises:
        ConfigurationError: it is not installed.
    """
    return _find("nginx", "nginx-light")


def find_haproxy() -> str:
    """Return HAProxy's path.

    Raises:
        ConfigurationError: it is not installed.
    """
    return _find("haproxy", "haproxy")


def find_litellm(path: Path) -> str:
    """Return the LiteLLM proxy's path.

    Raises:
        ConfigurationError: it is not installed there.
    """
    if not path.is_file():
        raise ConfigurationError(
            f"{path} is missing, expected the LiteLLM proxy in a virtual environment of its own;"
            " run make shared-capacity or make e2e-providers, which make one."
        )
    return str(path.absolute())


class Counting(Protocol):
    """A provider's own count of its answers, by status."""

    def begin(self) -> None:
        """Count from here on."""
        ...

    def since(self, total: int) -> Counter[int]:
        """Return the answers since `begin`, of which ``total`` are expected."""
        ...


class LogCounts:
    """Counts of the answers in a provider's own log.

    Args:
        log: the file.
        line: matches the line of an answer; its group is the status.
    """

    def __init__(self, log: Path, line: str) -> None:
        self._log = log
        self._line = re.compile(line, re.MULTILINE)
        self._counted: Counter[int] = Counter()

    def begin(self) -> None:
        """Count from here on."""
        self._counted = self._all()

    def since(self, total: int) -> Counter[int]:
        """Return the answers since `begin`, once there are ``total`` or ten seconds are over."""
        deadline = time.monotonic() + 10
        while (found := self._all() - self._counted).total() < total:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        return found

    def _all(self) -> Counter[int]:
        text = self._log.read_text(errors="replace")
        return Counter(int(found[1]) for found in self._line.finditer(text))


@contextlib.contextmanager
def child(command: Sequence[str], output: Path, **environment: str) -> Iterator[int]:
    """Run a command for the length of the block, its output in a file; yield its process id."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(output.parent), **environment}
    with (
        output.open("wb") as sink,
        subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=env) as process,
    ):
        try:
            yield process.pid
            if process.poll() is not None:
                raise InvariantBrokenError(
                    f"{command[0]} ended with {process.returncode} during the run, expected it to"
                    f" serve until its end; its last words: {_tail(output)}"
                )
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def mock_provider(folder: Path, *options: str) -> Iterator[str]:
    """Run ``forebay mock-provider`` with these options; yield its base URL."""
    output = folder / "mock-provider.out"
    command = [sys.executable, "-m", "forebay", "mock-provider", *options]
    with child(command, output, PYTHONPATH=str(_HERE.parents[1]), PYTHONUNBUFFERED="1"):
        yield _wait_for_line(output).removeprefix(_LISTENING)


def _filled(name: str, folder: Path, upstream_url: str, **values: object) -> Path:
    """Write a configuration of this folder with its words filled in; return where."""
    upstream = upstream_url.removeprefix("http://").partition("/")[0]
    text = (_HERE / name).read_text()
    for word, value in {"FOLDER": folder, "UPSTREAM": upstream, **values}.items():
        text = text.replace(f"@{word}@", str(value))
    config = folder / name
    config.write_text(text)
    return config


@contextlib.contextmanager
def nginx(
    folder: Path, upstream_url: str, *, has_rate: bool = True
) -> Iterator[tuple[str, Counting]]:
    """Run nginx with ``nginx.conf`` in front of a provider; yield base URL and counts.

    Args:
        folder: for its files.
        upstream_url: the provider.
        has_rate: the URL is of the server with a rate, else of the one that limits calls at once.
    """
    port, at_once_port = free_port(), free_port()
    config = _filled("nginx.conf", folder, upstream_url, PORT=port, AT_ONCE_PORT=at_once_port)
    command = [find_nginx(), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    with child(command, folder / "nginx.out"):
        wait_for_answer(f"http://127.0.0.1:{port}/healthz", folder / "error.log")
        counts = LogCounts(folder / "access.log", r"^(\d{3}) /v1/")
        yield f"http://127.0.0.1:{port if has_rate else at_once_port}/v1", counts


@contextlib.contextmanager
def haproxy(folder: Path, upstream_url: str) -> Iterator[tuple[str, Counting]]:
    """Run HAProxy with ``haproxy.cfg`` in front of a provider; yield base URL and counts."""
    port = free_port()
    config = _filled("haproxy.cfg", folder, upstream_url, PORT=port)
    output = folder / "haproxy.out"
    with child([find_haproxy(), "-db", "-f", str(config)], output):
        wait_for_answer(f"http://127.0.0.1:{port}/healthz", output)
        yield f"http://127.0.0.1:{port}/v1", LogCounts(output, r"^(\d{3}) /v1/")


@contextlib.contextmanager
def litellm_proxy(folder: Path, program: Path) -> Iterator[tuple[str, Counting]]:
    """Run a LiteLLM proxy with ``litellm.yaml``; yield base URL and counts."""
    port = free_port()
    output = folder / "litellm.out"
    command = [
        find_litellm(program),
        *("--config", str(_HERE / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)),
    ]
    # It would fetch prices from the network, which none of this needs.
    with child(command, output, LITELLM_LOCAL_MODEL_COST_MAP="True", PYTHONUNBUFFERED="1"):
        wait_for_answer(f"http://127.0.0.1:{port}/health/liveliness", output)
        line = r'"POST /v1/chat/completions HTTP/1\.1" (\d{3})'
        yield f"http://127.0.0.1:{port}/v1", LogCounts(output, line)


def _wait_for_line(output: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for line in output.read_text().splitlines():
            if line.startswith(_LISTENING):
                return line
        time.sleep(POLL_SECONDS)
    raise _late(output)


def wait_for_answer(url: str, output: Path) -> None:
    """Wait until something answers at a URL.

    Raises:
        ConfigurationError: not within `START_SECONDS`; the message has the last of its output.
    """
    deadline = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), opener.open(url, timeout=START_SECONDS):
            return
        time.sleep(POLL_SECONDS)
    raise _late(output)


def _late(output: Path) -> ConfigurationError:
    return ConfigurationError(
        f"a provider did not answer within {START_SECONDS:g} s, expected it to; its last words, in"
        f" {output}: {_tail(output)}"
    )


def _tail(output: Path) -> str:
    text = output.read_text(errors="replace") if output.exists() else ""
    return " | ".join(text.splitlines()[-8:]) or "none"
