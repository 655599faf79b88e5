"""`forebay top` in a terminal: redrawn after each look and each key."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.live import Live

from forebay.commands.top_looks import Looks
from forebay.commands.top_rows import POOL_TAG, SORTS

_KEYS: Final = re.compile(rb"\x1b[\[O][A-D]|[\x00-\xff]")
_ACTIONS: Final = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\r": "open",
    b"\n": "open",
    b"\x1b": "back",
    b"\x7f": "back",
    b"s": "sort",
    b"q": "quit",
}


class Cursor:
    """Handles the keys: choose, open, go back, sort, quit.

    Args:
        looks: whose ``opened`` and ``sort`` the keys set.

    Attributes:
        selected: name of the row that is chosen; None where there is none.
        is_over: whether q was pressed.
    """

    def __init__(self, looks: Looks) -> None:
        self.selected: str | None = None
        self.is_over = False
        self._looks = looks

    def press(self, typed: bytes) -> None:
        """Handle the keys among ``typed``; unknown ones are ignored."""
        for key in _KEYS.findall(typed):
            self._do(_ACTIONS.get(key, ""))

    def settle(self) -> None:
        """Choose the first row if the chosen one has gone."""
        choices = self._looks.choices
        if self._looks.opened is None and self.selected not in choices:
            self.selected = choices[0] if choices else None

    def _do(self, action: str) -> None:
        looks = self._looks
        self.settle()
        match action:
            case "quit":
                self.is_over = True
            case "sort":
                orders = list(SORTS)
                looks.sort = orders[(orders.index(looks.sort) + 1) % len(orders)]
            case "back":
                looks.opened = None
            case "open" if looks.opened is None and self.selected is not None:
                is_pool = self.selected.startswith(POOL_TAG)
                looks.opened = self.selected if is_pool else self.selected.rpartition(" ")[0]
            case "up" | "down" if looks.opened is None and self.selected is not None:
                choices = looks.choices
                place = choices.index(self.selected) + (1 if action == "down" else -1)
                self.selected = choices[min(max(0, place), len(choices) - 1)]


async def watch(url: str, *, sort: str, only: str | None, every_seconds: float) -> None:
    """Draw the fleet until q is pressed; while the server is away, add a note to the last look.

    Raises:
        CoordinatorError: the first look found no server that can be used.
    """
    console, loop, pressed = Console(), asyncio.get_running_loop(), asyncio.Event()
    async with Looks.open(url, sort=sort, only=only) as looks:
        await looks.look()
        cursor = Cursor(looks)
        descriptor = sys.stdin.fileno()

        def read_keys() -> None:
            typed = os.read(descriptor, 64)
            cursor.press(typed or b"q")  # nothing: the terminal is gone
            pressed.set()

        with (
            _keys_one_by_one(descriptor),
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            loop.add_reader(descriptor, read_keys)
            try:
                while not cursor.is_over:
                    cursor.settle()
                    width, height = console.size
                    picture = await looks.picture(
                        width=width, height=height, selected=cursor.selected
                    )
                    live.update(picture, refresh=True)
                    if not await _within(every_seconds, pressed):
                        await looks.look_or_note()
                    pressed.clear()
            finally:
                loop.remove_reader(descriptor)


async def _within(seconds: float, pressed: asyncio.Event) -> bool:
    """Wait for a key for some seconds; return whether one was pressed."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(pressed.wait(), seconds)
    return pressed.is_set()


@contextlib.contextmanager
def _keys_one_by_one(descriptor: int) -> Iterator[None]:
    """Let the terminal give each key at once and unshown; restore it in the end."""
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
