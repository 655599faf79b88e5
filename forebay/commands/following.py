"""Following a run on the screen: a look each second, until the run is over or is left."""

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
    """Look at a run once more; a server that is away is not waited for."""
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
    """Show a run; a server that is away is waited for.

    Args:
        reader: of the run.
        view: where it is shown; left open.
        note: called with each look as well.
        until_over: return once the server has the run no more; else never.
    """
    while True:
        with contextlib.suppress(CoordinatorError):  # whoever drives says what is wrong with it
            scene = await reader.read()
            if scene is not None:
                view.show(scene)
                if note is not None:
                    note(scene)
            elif until_over:
                return
        await asyncio.sleep(EVERY_SECONDS)
