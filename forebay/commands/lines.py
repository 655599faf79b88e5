"""Lines of at most 80 columns, as a terminal has, and printing to one that may be gone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

WIDTH: Final = 80


def fitted(
    parts: Sequence[str], *, first: str = "", indent: str = "    ", width: int = WIDTH
) -> list[str]:
    """Return parts on as few lines as they need, two spaces between.

    Nothing is cut: a part that is longer than a line, such as a long name, goes on below itself,
    where it can at a blank.

    Args:
        parts: in order; empty ones are left out.
        first: what the first line begins with.
        indent: what each further line begins with.
        width: most columns of a line.
    """
    lines, line = [], first
    for part in filter(None, parts):
        is_begun = line not in {first, indent}
        longer = f"{line}  {part}" if is_begun else f"{line}{part}"
        if is_begun and len(longer) > width:
            lines.append(line)
            line = f"{indent}{part}"
        else:
            line = longer
        while len(line) > width:
            end = line.rfind(" ", len(indent) + 1, width + 1)
            cut, skipped = (end, 1) if end > width // 2 else (width, 0)
            lines.append(line[:cut])
            line = f"{indent}{line[cut + skipped :]}"
    return [*lines, line]


def say(text: str, *, err: bool = False) -> None:
    """Print a line; a terminal or a reader that is gone ends nothing."""
    is_printed(text, err=err)


def is_printed(text: str, *, err: bool = False) -> bool:
    """Print a line; return whether its terminal or reader is still there."""
    stream = sys.stderr if err else sys.stdout
    try:
        click.echo(text, err=err)
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # nor shall the flush at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
