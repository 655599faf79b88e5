"""Host, pid, program and version of a member's process, as its shards store them."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from functools import cache
from pathlib import Path
from typing import Final

from forebay.coordinator.keys import encode

_LONGEST: Final = 64
"""Most characters of a host's or a program's name that are stored."""


def process_identity() -> str:
    """Return host, pid, program and version of this process, encoded, with blanks between.

    The program is the file or the module that was started, without its folder and arguments, which
    may hold secrets.
    """
    words = (socket.gethostname(), str(os.getpid()), _program(), _version())
    return " ".join(encode(word[:_LONGEST]) or "-" for word in words)


def operator_identity() -> str:
    """Return ``user@host`` of this process, encoded, as events name who set something."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return encode(f"{user[:_LONGEST]}@{socket.gethostname()[:_LONGEST]}")


def _version() -> str:
    """Return the version of the package, which may never have been installed."""
    return str(sys.modules["forebay"].__version__)


@cache
def _program() -> str:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name).removesuffix(".__main__")
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
