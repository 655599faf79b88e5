"""Evidence: what a call costs, and how well capacity is used and shared (spec 08)."""

from __future__ import annotations

import asyncio
import importlib
from importlib.util import find_spec


class InvariantBrokenError(Exception):
    """What must hold on any machine, at any speed, did not."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new uvloop loop where it is installed, else asyncio's own."""
    if find_spec("uvloop") is None:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    return loop


def loop_name() -> str:
    """Return which kind of loop ``new_event_loop`` makes."""
    return "asyncio" if find_spec("uvloop") is None else "uvloop"
