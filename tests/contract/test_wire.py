"""The wire: a connection that redis-py opened, read by a protocol of our own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from forebay.coordinator.address import parse_url
from forebay.coordinator.connections import open_async
from forebay.coordinator.wire import Wire, open_wire
from tests.support import wait_until


class Heard:
    """What a wire told."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.lost: list[Exception] = []

    async def until(self, count: int) -> list[Any]:
        async def has_come() -> bool:
            return len(self.messages) >= count

        await wait_until(has_come)
        return self.messages


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_replies_come_whole_and_in_order_on_either_loop(loop: str, redis_url: str) -> None:
    async def ask() -> list[Any]:
        client, heard = open_async(parse_url(redis_url)), Heard()
        wire = await open_wire(client, heard.messages.append, heard.lost.append)
        large = "x" * 300_000  # more than one read
        for command in (("SET", "k", large), ("GET", "k"), ("GET", "nothing"), ("NO-SUCH",)):
            wire.write(*command)
        messages = await heard.until(4)
        wire.close()
        await client.aclose()
        assert heard.lost == []
        assert messages[1] == large.encode()
        return messages

    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        messages = runner.run(ask())
    assert messages[0] == b"OK"
    assert messages[2] is None
    assert isinstance(messages[3], ResponseError)


async def test_the_end_of_the_connection_is_told_once(redis_url: str) -> None:
    client, heard = open_async(parse_url(redis_url)), Heard()
    wire = await open_wire(client, heard.messages.append, heard.lost.append)
    wire.write("QUIT")

    async def is_lost() -> bool:
        return bool(heard.lost)

    await wait_until(is_lost)
    wire.close()
    await client.aclose()
    assert [type(error) for error in heard.lost] == [RedisConnectionError]


async def test_a_closed_wire_tells_nothing_more(redis_url: str) -> None:
    client, heard = open_async(parse_url(redis_url)), Heard()
    wire = await open_wire(client, heard.messages.append, heard.lost.append)
    other: list[Any] = []
    second: Wire = await open_wire(client, other.append, heard.lost.append)
    wire.write("PING")
    wire.close()
    second.write("PING")

    async def has_come() -> bool:
        return other == [b"PONG"]

    await wait_until(has_come)
    second.close()
    await client.aclose()
    assert heard.messages == []
    assert heard.lost == []
