"""Measures how soon a fleet is at full throughput again after its server was killed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.harness import new_runner, told
from bench.reliability.document import table
from forebay.contracts.errors import CoordinatorError
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionItem
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="restart")
RESOURCE: Final = RequestResourceKey(provider_model=PROVIDER_MODEL)
FULL: Final = 0.95
"""Of the calls a second before the kill, over a whole second."""
STEP_SECONDS: Final = 0.1
PAUSE_SECONDS: Final = 0.01
"""Of a caller after an error, before it asks again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run.

    Attributes:
        members: processes' worth of memberships, in one process.
        callers: of each.
        cap: slots.
        hold_seconds: of each call.
        ttl_seconds: of each membership.
        before_seconds: measured before the kill.
        after_seconds: measured after the return.
    """

    members: int = 4
    callers: int = 8
    cap: int = 8
    hold_seconds: float = 0.1
    ttl_seconds: float = MemberSettings().ttl_seconds
    before_seconds: float = 5.0
    after_seconds: float = 12.0


FULL_SIZE: Final = Inputs()
SMOKE: Final = Inputs(ttl_seconds=1.5, hold_seconds=0.05, before_seconds=1.0, after_seconds=4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Calls of a fleet around a restart of its server.

    Attributes:
        before: calls a second before the kill.
        full_after_seconds: from the instant at which the server answers again to the first second
            at full throughput; None where there was none.
    """

    before: float
    full_after_seconds: float | None


def full_after(ends: Sequence[float], back_at: float, before: float, until: float) -> float | None:
    """Return after how long the first second begins with `FULL` of the calls of before.

    Args:
        ends: when calls ended.
        back_at: when the server answered again.
        before: calls a second before the kill.
        until: when measuring ended.
    """
    at = back_at
    while at + 1.0 <= until:
        if sum(at <= end < at + 1.0 for end in ends) >= FULL * before:
            return at - back_at
        at += STEP_SECONDS
    return None


async def _measure(server: EmbeddedServer, inputs: Inputs, *, keeps_data: bool) -> Resumed:
    settings = MemberSettings(ttl_seconds=inputs.ttl_seconds)
    ends: list[float] = []

    async def call(controller: AdaptiveRequestAdmissionController) -> None:
        while True:
            try:
                lease = await controller.acquire(RequestAdmissionItem(resource=RESOURCE))
                await asyncio.sleep(inputs.hold_seconds)
                ends.append(time.monotonic())
                await controller.release(lease, SUCCESS)
            except CoordinatorError:
                await asyncio.sleep(PAUSE_SECONDS)

    async with contextlib.AsyncExitStack() as stack:
        calling = []
        for _ in range(inputs.members):
            connection = await stack.enter_async_context(
                await ServerConnection.open(server.url, settings)
            )
            controller = AdaptiveRequestAdmissionController(connection)
            stack.push_async_callback(controller.close)
            await controller.register(PROVIDER_MODEL, "bench", inputs.cap, told(inputs.cap))
            calling += [asyncio.create_task(call(controller)) for _ in range(inputs.callers)]
        await asyncio.sleep(1.0 + inputs.before_seconds)
        killed_at = time.monotonic()
        before = sum(end >= killed_at - inputs.before_seconds for end in ends)
        await asyncio.to_thread(_kill, server, keeps_data=keeps_data)
        back_at = time.monotonic()
        await asyncio.sleep(inputs.after_seconds)
        for task in calling:
            task.cancel()
        await asyncio.gather(*calling, return_exceptions=True)
    rate = before / inputs.before_seconds
    seconds = full_after(ends, back_at, rate, back_at + inputs.after_seconds)
    return Resumed(before=rate, full_after_seconds=seconds)


def _kill(server: EmbeddedServer, *, keeps_data: bool) -> None:
    """Kill a server and start it again, with its data or without."""
    server.kill()
    if not keeps_data and server.data_dir is not None:
        for folder in filter(Path.is_dir, server.data_dir.iterdir()):
            shutil.rmtree(folder)
    server.restart()


def resume(inputs: Inputs, *, keeps_data: bool) -> Resumed:
    """Kill the server of a fleet at work, start it again, and watch the fleet."""
    with TemporaryDirectory() as folder, EmbeddedServer(folder) as server, new_runner() as runner:
        return runner.run(_measure(server, inputs, keeps_data=keeps_data))


def restarts(is_smoke: bool) -> str:
    """Throughput after the server was killed and started again."""
    inputs = SMOKE if is_smoke else FULL_SIZE
    aim = inputs.ttl_seconds / 3 + 2.0
    rows = []
    for name, keeps_data in (("with its data", True), ("without any data", False)):
        found = resume(inputs, keeps_data=keeps_data)
        seconds = found.full_after_seconds
        is_held = seconds is not None and seconds <= aim
        rows.append(
            (
                name,
                f"{found.before:.1f} /s",
                "not within the time measured" if seconds is None else f"{seconds:.1f} s",
                f"≤ {aim:g} s",
                "yes" if is_held else "**no**",
            )
        )
    headers = ("the server is killed, and started again", "calls before", "full again after", "aim",
               "held?")  # fmt: skip
    return table(headers, rows)
