"""Checks that a run's output can be written, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

LONGEST_FILE_NAME: Final = 255
"""Bytes that the usual file systems allow."""


def file_problem(path: Path, purpose: str, others: Sequence[tuple[Path, str]]) -> str | None:
    """Return why a file cannot be written, as the rest of a sentence; None if it can.

    Args:
        path: the file.
        purpose: what the run uses it for, as a clause; "" for the output itself.
        others: files that must not be overwritten, each with what it is ("the seed file").
    """
    if path.is_dir():
        remedy = "name another file" if purpose else "name a file in it"
        return f"{path}{purpose} is a folder; {remedy}"
    if path.exists() and not path.is_file():
        return f"{path}{purpose} is no ordinary file; name another file"
    for other, what in others:
        if path.exists() and path.samefile(other):
            return f"{path}{purpose} is {what}; name another file"
    return None


def folder_problem(folder: Path) -> str | None:
    """Return why a folder cannot be made or written in, as the rest of a sentence."""
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is no folder, so that nothing can lie below it; name another file"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"this user may not write in the folder {folder}; name a file in one of its own"
    return None


def name_problem(name: str) -> str | None:
    """Return why no file can have a name, as the rest of a sentence; None if one can."""
    length = len(os.fsencode(name))
    if length <= LONGEST_FILE_NAME:
        return None
    return (
        f"the file name {name[:40]!r}... would have {length} bytes, the most is"
        f" {LONGEST_FILE_NAME}; shorten it, or the name of the workflow"
    )
