"""`forebay worker --watch`: the worker is started anew when a file of a folder changes."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from forebay.runtime import start_again, stop_workers


async def work_and_watch(folder: Path) -> None:
    """Run this command line's worker in a process of its own until a signal ends it.

    At each change the worker gives its jobs back and another one is started, which imports the
    program anew; arq's own goes on with the modules that it has.
    """
    from watchfiles import awatch

    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    worker = start_again("--watched")
    try:
        async for _ in awatch(folder, stop_event=stop):
            click.echo("files changed, starting the worker anew")
            await asyncio.to_thread(stop_workers, [worker])
            worker = start_again("--watched")
    finally:
        await asyncio.to_thread(stop_workers, [worker])
