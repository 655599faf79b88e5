"""Callers of a proxy that cost little themselves: HTTP/1.1 on raw connections, kept open."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from bench.proxies.sides import KEY, Side

CALL_SECONDS: Final = 60.0
"""Longest wait of one call: a proxy that answers nothing ends the run."""

_FIRST_BACK_OFF_SECONDS: Final = 0.5
_LONGEST_BACK_OFF_SECONDS: Final = 8.0


def _request(side: Side) -> bytes:
    messages = [{"role": "user", "content": "How much water is enough?"}]
    body = json.dumps({"model": side.model, "messages": messages})
    return (
        f"POST {side.path}/v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Caller(asyncio.Protocol):
    """Calls a side, one call at a time, on a connection that is kept open where the side does.

    Args:
        side: what is called.
    """

    def __init__(self, side: Side) -> None:
        self._port = side.port
        self._request = _request(side)
        self._transport: Any = None
        self._kept = b""
        self._answered: asyncio.Future[int] | None = None

    async def call(self) -> int:
        """Call once; return the status."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        self._answered = loop.create_future()
        self._transport.write(self._request)
        async with asyncio.timeout(CALL_SECONDS):
            return await self._answered

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._kept = b""

    def data_received(self, data: bytes) -> None:
        self._kept += data
        head, found, rest = self._kept.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().split(b"\r\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0])
        if len(rest) >= length and self._answered is not None:
            self._kept = rest[length:]
            self._answered.set_result(int(head.split(b" ", 2)[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("closed within a call"))


@dataclass(slots=True)
class Turn:
    """The calls of one proxy in its turn of a round: counts and latencies.

    Attributes:
        latencies: of the calls in the counted time that were answered with 200, in seconds.
        statuses: of the answers in the counted time.
        cpu_seconds: what the proxy used in the counted time.
    """

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    cpu_seconds: float = 0.0


async def take_turn(side: Side, *, in_flight: int, seconds: float, warm_up_seconds: float) -> Turn:
    """Call on as many connections for a while, each again as soon as it is answered.

    A caller that is refused backs off as SDKs do: from half a second on, doubled, with jitter.

    Args:
        side: what is called.
        in_flight: connections.
        seconds: the counted time.
        warm_up_seconds: before it.
    """
    turn = Turn()
    callers = [Caller(side) for _ in range(in_flight)]
    await callers[0].call()  # a proxy's first call may load for seconds
    counted_from = time.monotonic() + warm_up_seconds
    end = counted_from + seconds

    async def call_on(caller: Caller) -> None:
        refused = 0
        while (began := time.monotonic()) < end:
            status = await caller.call()
            now = time.monotonic()
            if counted_from <= now < end:
                turn.statuses[status] += 1
                if status == 200:
                    turn.latencies.append(now - began)
            refused = 0 if status == 200 else refused + 1
            if refused:
                pause = min(_FIRST_BACK_OFF_SECONDS * 2 ** (refused - 1), _LONGEST_BACK_OFF_SECONDS)
                await asyncio.sleep(pause * (1 - 0.25 * random.random()))

    async def measure_cpu() -> None:
        await asyncio.sleep(counted_from - time.monotonic())
        before = side.cpu_seconds()
        await asyncio.sleep(end - time.monotonic())
        turn.cpu_seconds = side.cpu_seconds() - before

    try:
        await asyncio.gather(measure_cpu(), *map(call_on, callers))
    finally:
        for caller in callers:
            caller.close()
    return turn
