"""Ctrl-C before a command has begun: it ends the process with one line."""

from __future__ import annotations

import os


def end_at_once(number: int, _frame: object) -> None:
    """End this process, in which nothing was begun yet that would need an end.

    An exception would arise within whichever import goes on, which may turn it into another.
    """
    os.write(2, b"stopped by SIGINT\n")
    os._exit(128 + number)
