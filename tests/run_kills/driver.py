"""``forebay``, which kills itself before one of the changes that it makes in a folder."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

FOLDER: Final = "FOREBAY_TEST_FOLDER"
DIES_AT: Final = "FOREBAY_TEST_DIES_AT"
COUNT_FILE: Final = "FOREBAY_TEST_COUNT_FILE"
_CHANGES: Final = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "open"}


def install(folder: str, dies_at: int, count_file: Path | None) -> None:
    """Let this process end by SIGKILL before its change number ``dies_at`` in a folder."""
    changes = 0

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in _CHANGES or not isinstance(arguments[0], str | os.PathLike):
            return
        if not os.fspath(arguments[0]).startswith(folder):
            return
        if event == "open" and arguments[1] is not None and not set(arguments[1]) & set("wax+"):
            return
        changes += 1
        if changes == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    if count_file is not None:
        atexit.register(lambda: count_file.write_text(str(changes)))


if __name__ == "__main__":
    counted = os.environ.get(COUNT_FILE)
    install(
        os.environ[FOLDER], int(os.environ.get(DIES_AT, "0")), Path(counted) if counted else None
    )
    from forebay.start import main

    main()
