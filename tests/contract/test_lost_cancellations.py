"""A task that is cancelled while it uses the server ends, at whichever moment that comes.

Up to Python 3.11 `asyncio.wait_for` forgets a cancellation that comes as it ends. A demo whose
looking was so cancelled never ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import get_args

import pytest

from forebay.coordinator.server.address import Transport
from forebay.coordinator.server.async_connections import ASYNC_CONNECTIONS
from forebay.coordinator.server.connections import open_async
from forebay.coordinator.server.urls import parse_url

PATIENCE_SECONDS = 30.0
TURNS = range(1, 13)
"""Turns of the loop that a command is given before its end; its sending takes fewer."""


class Ended:
    """A task that asks the server and then waits for ever, and one way to end it."""

    def __init__(self, ask: Callable[[], object], way: str) -> None:
        self._ask = ask
        self._way = way
        self._deadline = asyncio.timeout(None)
        self.task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        async with self._deadline:
            await self._ask()  # type: ignore[misc]
            await asyncio.Event().wait()

    def end(self) -> None:
        if self._way == "cancel":
            self.task.cancel()
        else:
            self._deadline.reschedule(asyncio.get_running_loop().time())


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("way", ["cancel", "timeout"])
@pytest.mark.parametrize("command", ["one", "pipeline"])
async def test_a_task_that_uses_the_server_ends_when_it_is_told(redis_url, command, way, turns):
    async with open_async(parse_url(redis_url)) as client:
        await client.set("key", "value")

        async def ask() -> object:
            if command == "one":
                return await client.get("other")
            async with client.pipeline(transaction=False) as pipe:
                return await pipe.get("other").execute()

        ended = Ended(ask, way)
        for _ in range(turns):
            await asyncio.sleep(0)
        ended.end()
        await asyncio.wait({ended.task}, timeout=PATIENCE_SECONDS)
        is_done = ended.task.done()
        ended.task.cancel()
        await asyncio.wait({ended.task})
        assert is_done
        if way == "cancel":
            assert ended.task.cancelled()
        else:
            assert type(ended.task.exception()) is TimeoutError
        assert await client.get("key") == b"value"  # and no reply of the command before


def test_every_kind_of_address_is_reached_so() -> None:
    kinds = set(ASYNC_CONNECTIONS.values())
    assert len(kinds) == len(ASYNC_CONNECTIONS) == len(get_args(Transport))
    (send,) = {kind.send_packed_command for kind in kinds}
    assert send.__module__ == "forebay.coordinator.server.async_connections"
