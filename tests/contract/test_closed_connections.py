"""A command over a connection that was just closed ends with redis-py's error, on either loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import redis
import uvloop

from forebay.coordinator.server.connections import open_async
from forebay.coordinator.server.urls import parse_url

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_command_on_a_closed_connection_raises_no_error_of_the_loop(
    redis_url: str, run: Run
) -> None:
    async def send_on_a_closed_one() -> None:
        async with open_async(parse_url(redis_url)) as client:
            connection: Any = await client.connection_pool.get_connection()
            connection._writer.transport.abort()
            with pytest.raises(redis.ConnectionError):
                await connection.send_packed_command([b"PING"])
            await client.connection_pool.release(connection)
            assert await client.ping()

    run(send_on_a_closed_one())
