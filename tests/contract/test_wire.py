"""The wire: a connection that redis-py opened, read by a protocol of our own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import hiredis
import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from forebay.coordinator.server.connections import open_async
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server.wire import CommandHead, Wire, is_sendable, open_wire, read_json
from tests.support import wait_until

SECRET = "a secret"  # no line of a traceback quotes it, only the message does


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


async def test_a_message_that_cannot_be_handled_ends_the_connection_and_is_said(
    redis_url: str,
) -> None:
    def refuse(_message: Any) -> None:
        raise ValueError(SECRET)

    client, heard = open_async(parse_url(redis_url)), Heard()
    with capture_logs() as logs:
        wire = await open_wire(client, refuse, heard.lost.append)
        wire.write("PING")
        await wait_until(lambda: bool(heard.lost))
    await client.aclose()
    assert [type(error) for error in heard.lost] == [RedisConnectionError]
    assert [entry["event"] for entry in logs] == ["unexpected_exception"]
    assert SECRET not in str(logs)


@pytest.mark.parametrize(
    "garbage", [b"?what\r\n", b"-\xff\xfe\r\n", b"$-7\r\n"], ids=["type", "text", "length"]
)
async def test_bytes_that_are_no_reply_end_the_connection(redis_url: str, garbage: bytes) -> None:
    client, heard = open_async(parse_url(redis_url)), Heard()
    wire = await open_wire(client, heard.messages.append, heard.lost.append)
    wire.data_received(garbage)
    await client.aclose()
    assert len(heard.lost) + len(heard.messages) == 1
    wire.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_command_for_a_connection_that_is_gone_ends_it_on_either_loop(
    loop: str, redis_url: str
) -> None:
    async def write_too_late() -> list[Exception]:
        client, heard = open_async(parse_url(redis_url)), Heard()
        wire = await open_wire(client, heard.messages.append, heard.lost.append)
        wire._transport.abort()
        wire._connection._writer.transport.set_protocol(asyncio.Protocol())  # it says nothing
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(10):
            wire.write("PING")
        if loop == "asyncio":  # whose transport says nothing either
            wire._end(RedisConnectionError("gone"))
        await wait_until(lambda: bool(heard.lost))
        await client.aclose()
        return heard.lost

    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        lost = runner.run(write_too_late())
    assert [type(error) for error in lost] == [RedisConnectionError]


async def test_what_has_no_form_in_bytes_is_refused_and_the_connection_goes_on(
    redis_url: str,
) -> None:
    client, heard = open_async(parse_url(redis_url)), Heard()
    wire = await open_wire(client, heard.messages.append, heard.lost.append)
    command: Any = ("SET", "k", None)
    assert not is_sendable(command)
    with pytest.raises(TypeError):
        wire.write(*command)
    wire.write("PING")
    assert await heard.until(1) == [b"PONG"]
    wire.close()
    await client.aclose()


async def test_an_opening_that_is_cancelled_leaves_no_connection(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging_in: list[Any] = []

    async def never_logged_in(connection: Any) -> None:
        logging_in.append(connection)  # and so keeps it from being collected, which closes it, too
        await asyncio.Event().wait()

    client = open_async(parse_url(redis_url), socket_timeout_seconds=None)
    monkeypatch.setattr(AbstractConnection, "on_connect", never_logged_in)
    opening = asyncio.create_task(open_wire(client, print, print))
    await wait_until(lambda: bool(logging_in))
    transport = logging_in[0]._writer.transport
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert transport.is_closing()
    await client.aclose()


@pytest.mark.parametrize(
    "rest", [(), ("a",), ("a\r\nb", b"\x00\n", "ä", "", 7, -1)], ids=["none", "one", "many"]
)
def test_a_head_and_its_rest_make_the_bytes_of_the_whole_command(
    rest: tuple[str | int | bytes, ...],
) -> None:
    first = ("FCALL", "f", 2, "k\n1", b"k2")
    whole: Any = (*first, *rest)
    assert CommandHead(*first).pack(rest) == hiredis.pack_command(whole)


def test_a_rest_without_a_form_in_bytes_is_refused_and_the_head_serves_on() -> None:
    head = CommandHead("PING")
    unsendable: Any = [object()]
    with pytest.raises(TypeError):
        head.pack(unsendable)
    assert head.pack(["x"]) == b"*2\r\n$4\r\nPING\r\n$1\r\nx\r\n"


@pytest.mark.parametrize("text", ['[1, 2.5, "\\u00e4", null, [true]]', '"\ud800"', "0"])
def test_a_reply_is_read_as_json_is(text: str) -> None:
    packed = text.encode("utf-8", "surrogatepass")
    assert read_json(packed) == json.loads(packed)


@pytest.mark.parametrize("text", [b"[1] [2]", b"[1]x", b"", b"[1", b"\xff"])
def test_a_reply_that_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(text)
