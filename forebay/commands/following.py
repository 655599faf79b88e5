"""Showing a run on the screen once a second, until the run is over or the user leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from forebay.commands.progress import RunView
from forebay.commands.run_scene import RunScene, SceneReader
from forebay.contracts.errors import CoordinatorError

EVERY_SECONDS: Final = 1.0


async def look_once(reader: SceneReader, note: Callable[[RunScene], None]) -> None:
    """Read a run once more; do nothing where the server is away."""
    with contextlib.suppress(CoordinatorError):
        scene = await reader.read()
        if scene is not None:
            note(scene)


async def follow(
    reader: SceneReader,
    view: RunView,
    *,
    note: Callable[[RunScene], None] | None = None,
    until_over: bool = True,
) -> None:
    """Show a run once a second; wait for a server that is away.

    Args:
        reader: of the run.
        view: where it is shown; left open.
        note: called with each look as well.
        until_over: return once the server has the run no more; else never.
    """
    while True:
        with contextlib.suppress(CoordinatorError):  # the driver logs the error
            scene = await reader.read()
            if scene is not None:
                view.show(scene)
                if note is not None:
                    note(scene)
            elif until_over:
                return
        await asyncio.sleep(EVERY_SECONDS)
