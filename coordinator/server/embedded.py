"""The embedded server's life: start, stop, crash and restart (design 06, *Where it runs*).

Its owner starts a watchdog (``embedded_watchdog.py``) that runs the server and ends it with the
owner; its binary and folders are the matter of ``embedded_files.py``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import redis

from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable
from forebay.coordinator.server.address import UnixAddress
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded_files import (
    SOCKET_NAME,
    find_server_binary,
    locked,
    make_runtime_dir,
)

LOG_FILE = "server.log"
_READY_POLL_SECONDS = 0.005
_STOP_SECONDS = 2.0
_LOG_TAIL_LINES = 8

_WATCHDOG = Path(__file__).with_name("embedded_watchdog.py")

# A forked child inherits the pipes that say "the owner lives". It is not an owner, so it closes
# them at once; else the servers would outlive a killed owner for as long as the child lives.
_lifelines: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def _close_inherited_lifelines() -> None:
    for lifeline in list(_lifelines):
        lifeline.close()


os.register_at_fork(after_in_child=_close_inherited_lifelines)


class EmbeddedServer:
    """A private server on a unix socket, stopped with the process that started it.

    It is a real server with an append-only file, for a first run, tests and single-machine use.
    It listens on no TCP port. Its socket lies in a short folder that only this user can enter; it
    ends when it is stopped and when its owner ends, by SIGKILL too (see ``embedded_watchdog.py``).

    All methods are synchronous and belong to the process that made the object; in a forked child
    they do nothing. One data folder serves one server at a time: the server itself holds the lock
    on it, so the lock ends exactly when the server does.

    Attributes:
        data_dir: its folder, or None while a server with temporary data is stopped.
    """

    def __init__(
        self, data_dir: str | os.PathLike[str] | None = None, *, start_timeout_seconds: float = 30.0
    ) -> None:
        """Describes a server; nothing starts yet.

        Args:
            data_dir: folder for the append-only file and the log, made when missing; None for
                temporary data that is removed on ``stop``.
            start_timeout_seconds: how long a start may take; a large data folder takes longest.
        """
        self.data_dir = None if data_dir is None else Path(data_dir).absolute()
        self._temporary_data = data_dir is None
        self._start_timeout_seconds = start_timeout_seconds
        self._owner_pid = os.getpid()
        self._runtime_dir: Path | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._server_pid: int | None = None

    @property
    def url(self) -> str:
        """The ``unix://`` URL; it stays the same over ``kill`` and ``restart``.

        Raises:
            ConfigurationError: the server was not started.
        """
        return f"unix://{quote(str(self._socket_path))}"

    @property
    def pid(self) -> int:
        """The pid of the server itself, for fault tests.

        Raises:
            ConfigurationError: the server is not running.
        """
        if self._server_pid is None:
            raise ConfigurationError(
                "the embedded server is not running; expected a started one; call start() first"
            )
        return self._server_pid

    def start(self) -> str:
        """Starts the server and waits until it answers; a started one is left as it is.

        Returns:
            Its ``unix://`` URL.

        Raises:
            ConfigurationError: no server binary, a data folder that cannot be used or is in use,
                or a server that ended at once (the message has its last log lines).
            CoordinatorUnavailable: it did not answer within ``start_timeout_seconds``.
        """
        if self._watchdog is not None:
            return self.url
        binary = find_server_binary()
        try:
            self._launch(binary)
        except OSError as error:
            raise ConfigurationError(
                f"the embedded server on {self.data_dir} could not be started ({error}); expected "
                "a folder that this user may write to; choose one: embedded:///absolute/folder"
            ) from error
        finally:
            if self._server_pid is None:
                self.stop()
        return self.url

    def stop(self) -> None:
        """Stops the server in good order and removes its socket, and its data if temporary.

        It is asked to end (it then syncs its file) and killed when it does not within 2 s. A
        stopped server is left as it is.
        """
        if os.getpid() != self._owner_pid:
            return
        if self._watchdog is not None:
            _close_lifeline(self._watchdog)  # the watchdog does the rest, as if this process ended
            self._watchdog.wait()
            self._watchdog = self._server_pid = None
        for folder in self._disposable_folders():
            shutil.rmtree(folder, ignore_errors=True)
        self._runtime_dir = None
        if self._temporary_data:
            self.data_dir = None

    def kill(self) -> None:
        """Kills the server (SIGKILL), as a crash would; data and URL are kept for ``restart``."""
        self._end_server(signal.SIGKILL)

    def restart(self) -> str:
        """Starts the server again on its data, under the same URL, ending it first if it runs.

        Returns:
            Its ``unix://`` URL.

        Raises:
            ConfigurationError, CoordinatorUnavailable: as ``start``.
        """
        self._end_server(signal.SIGTERM)
        return self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._server_pid is None else f"running, pid {self.pid}"
        return f"<EmbeddedServer {self.data_dir or 'temporary'} ({state})>"

    @property
    def _socket_path(self) -> Path:
        if self._runtime_dir is None:
            raise ConfigurationError(
                "the embedded server has no URL; expected a started one; call start() first"
            )
        return self._runtime_dir / SOCKET_NAME

    def _disposable_folders(self) -> list[Path]:
        temporary = self.data_dir if self._temporary_data else None
        return [folder for folder in (self._runtime_dir, temporary) if folder is not None]

    def _launch(self, binary: Path) -> None:
        self._owner_pid = os.getpid()
        if self.data_dir is None:
            self.data_dir = Path(tempfile.mkdtemp(prefix="fb-data-"))
        if self._runtime_dir is None:
            self._runtime_dir = make_runtime_dir()
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_file = self.data_dir / LOG_FILE
        log_file.touch(mode=0o600)
        with locked(self.data_dir, self.url) as lock_fd, log_file.open("ab") as log:
            log_start_bytes = log.tell()
            self._watchdog = subprocess.Popen(
                _watchdog_command(lock_fd, self._disposable_folders(), binary, self._socket_path),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
                cwd=self.data_dir,
                pass_fds=[lock_fd],
                start_new_session=True,  # an interrupt at the terminal is the owner's to handle
                umask=0o077,  # payloads are nobody else's to read
            )
        if self._watchdog.stdin is not None:
            _lifelines.add(self._watchdog.stdin)
        self._await_ready(self._watchdog, log_start_bytes)
        self._server_pid = int((self._runtime_dir / "pid").read_text())

    def _await_ready(self, watchdog: subprocess.Popen[bytes], log_start_bytes: int) -> None:
        deadline = time.monotonic() + self._start_timeout_seconds
        with open_sync(UnixAddress(path=str(self._socket_path))) as client:
            while True:
                # a server that still loads its file says so with a ConnectionError, too
                with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
                    client.ping()
                    return
                if watchdog.poll() is not None:
                    raise ConfigurationError(
                        f"the embedded server on {self.data_dir} ended while starting; expected it "
                        f"to answer; correct what its log says: {self._log_tail(log_start_bytes)}"
                    )
                if time.monotonic() > deadline:
                    raise CoordinatorUnavailable(
                        f"the embedded server on {self.data_dir} did not answer within "
                        f"{self._start_timeout_seconds} s; expected it to load its data by then; "
                        f"allow it more time, or see its log: {self._log_tail(log_start_bytes)}"
                    )
                time.sleep(_READY_POLL_SECONDS)

    def _log_tail(self, start_bytes: int) -> str:
        log = Path(self.data_dir or "", LOG_FILE)
        text = log.read_bytes()[start_bytes:].decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-_LOG_TAIL_LINES:]) or "(empty)"

    def _end_server(self, number: signal.Signals) -> None:
        if self._watchdog is None or os.getpid() != self._owner_pid:
            return
        watchdog, server_pid = self._watchdog, self.pid
        self._watchdog = self._server_pid = None
        with contextlib.suppress(ProcessLookupError):
            # while the watchdog runs, its child's pid can belong to nobody else
            if watchdog.poll() is None:
                os.kill(server_pid, number)
            try:
                watchdog.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.kill(server_pid, signal.SIGKILL)
        watchdog.wait()
        _close_lifeline(watchdog)


def _watchdog_command(lock_fd: int, folders: list[Path], binary: Path, socket: Path) -> list[str]:
    # -I and -S: no site packages and none of the caller's PYTHON* variables
    watchdog = [sys.executable, "-I", "-S", str(_WATCHDOG), str(lock_fd), *map(str, folders)]
    settings = {
        "port": "0",  # never TCP
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "pidfile": str(socket.with_name("pid")),
        # the data folder is the working folder, and the log is standard output
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        # a full server must refuse what takes, not forget what was granted
        "maxmemory-policy": "noeviction",
        "always-show-logo": "no",
    }
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return [*watchdog, "--", str(binary), *arguments]


def _close_lifeline(watchdog: subprocess.Popen[bytes]) -> None:
    if watchdog.stdin is not None:
        watchdog.stdin.close()
