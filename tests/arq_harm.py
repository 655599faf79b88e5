"""An arq application some of whose jobs harm their process, each in a way of its own."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

from tests.arq_app import note


class OwnError(BaseException):
    """No ``Exception``."""


class UnreadableError(Exception):
    """Its message ends the worker that reads it."""

    def __str__(self) -> str:
        raise SystemExit(0)


class Unwritable(dict[str, int]):
    """A result that ends the worker that writes it."""

    def items(self) -> Any:
        """Raise what no loop outlives."""
        raise KeyboardInterrupt


RAISED: dict[str, BaseException] = {
    "KeyboardInterrupt": KeyboardInterrupt(),
    "SystemExit-0": SystemExit(0),
    "SystemExit-3": SystemExit(3),
    "GeneratorExit": GeneratorExit(),
    "BaseException": BaseException(),
    "BaseExceptionGroup": BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError()]),
    "OwnError": OwnError("no"),
    "CancelledError": asyncio.CancelledError(),
    "unreadable": UnreadableError(),
}


async def _exit() -> None:
    sys.exit(0)


async def _exit_in_a_task() -> None:
    await asyncio.create_task(_exit())


async def _exit_in_a_gather() -> None:
    await asyncio.gather(_exit(), asyncio.sleep(0.01))


async def _exit_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_exit())


async def _exit_in_a_thread() -> None:
    await asyncio.to_thread(sys.exit, 0)


async def _exit_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 0)
    await asyncio.sleep(0.01)


async def _stop_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)


async def _cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


async def _cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(1)


async def _hoard() -> None:
    held = []
    while True:
        held.append(bytearray(8 * 1024 * 1024))
        await asyncio.sleep(0)


async def _ask_for_too_much() -> None:
    bytearray(1 << 40)


async def _segfault() -> None:
    ctypes.string_at(0)


async def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _leave() -> None:
    os._exit(0)


DONE = {
    "SystemExit-in-a-task": _exit_in_a_task,
    "SystemExit-in-a-gather": _exit_in_a_gather,
    "SystemExit-in-a-group": _exit_in_a_group,
    "SystemExit-in-a-thread": _exit_in_a_thread,
    "SystemExit-in-a-callback": _exit_in_a_callback,
    "loop.stop": _stop_the_loop,
    "cancels-itself": _cancel_itself,
    "cancels-all": _cancel_all,
    "hoards": _hoard,
    "asks-for-too-much": _ask_for_too_much,
    "segfault": _segfault,
    "SIGKILL": _kill,
    "os._exit": _leave,
}


async def innocent(ctx: dict[str, Any], gate: str) -> int:
    """Wait for a gate; say which process it was."""
    await note(ctx, "job_began")
    while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - another process opens it
        await asyncio.sleep(0.01)
    await note(ctx, "job_ended")
    return os.getpid()


async def harm(ctx: dict[str, Any], how: str) -> Any:
    """Raise or do something that a loop or a process does not outlive by itself."""
    await note(ctx, "job_began")
    if how in RAISED:
        raise RAISED[how]
    if how == "unwritable":
        return Unwritable(a=1)
    return await DONE[how]()


async def on_startup(ctx: dict[str, Any]) -> None:
    """Let the process have little memory more than it has now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()  # noqa: ASYNC240
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class WorkerSettings:
    """What ``forebay worker tests.arq_harm.WorkerSettings`` runs."""

    functions: ClassVar = (innocent, harm)
    on_startup = on_startup
    max_jobs = 10
    poll_delay = 0.05
