"""A connection's bytes: commands out, replies and messages in, with no task in between.

redis-py opens the connection, with its login, TLS and settings; from then on its streams would cost
more than the server does, so the transport is handed to a protocol of our own (ADR 0005).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import hiredis
import redis.asyncio as aioredis
from redis._parsers import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from forebay.coordinator.logs import Logger
from forebay.coordinator.supervision import Guard

_NOT_YET: Final = object()
_JSON: Final = json.JSONDecoder()

log = Logger("forebay.wire")


class CommandHead:
    """The first parts of a command that is sent again and again, packed once for all calls.

    They are three quarters of a batch's call, which names every key of its shard.

    Args:
        parts: the command's name and its first arguments.
    """

    def __init__(self, *parts: str | int | bytes) -> None:
        self._count = len(parts)
        self._packed = _without_count(hiredis.pack_command(parts))  # type: ignore[arg-type] # as below

    def pack(self, rest: Sequence[str | int | bytes]) -> bytes:
        """Return the bytes of the command with the rest of its arguments.

        Raises:
            TypeError, ValueError: the rest holds something that has no form in bytes.
        """
        packed = hiredis.pack_command(tuple(rest))  # type: ignore[arg-type] # as below
        return b"*%d\r\n%b%b" % (self._count + len(rest), self._packed, _without_count(packed))


class FunctionCalls:
    """The calls of one function of a library, and of its twin that a server without memory runs.

    Args:
        function: the function's name in its script.
        keys: what each call names.
    """

    def __init__(self, function: str, keys: Sequence[str]) -> None:
        self._function = function
        self._keys = keys
        self._heads: dict[str, CommandHead] = {}  # by the function's name on the server

    def pack(
        self,
        names: Mapping[str, str],
        arguments: Sequence[str | int | bytes],
        *,
        is_release: bool,
    ) -> bytes:
        """Return the bytes of a call; raises as `CommandHead.pack`.

        Args:
            names: the names that functions have on the server, by their names in the scripts.
            arguments: of this call.
            is_release: whether it runs on a server without memory.
        """
        function = names.get(self._function, self._function)
        function += "_freeing" if is_release else ""
        head = self._heads.get(function)
        if head is None:
            head = CommandHead("FCALL", function, len(self._keys), *self._keys)
            self._heads[function] = head
        return head.pack(arguments)


def _without_count(packed: bytes) -> bytes:
    """Return a packed command without its first line, the number of its parts."""
    return packed[packed.index(b"\n") + 1 :]


class Wire(asyncio.Protocol):
    """One open connection.

    Args:
        connection: redis-py's, connected; closed with the wire.
        on_message: told each reply or message; an error reply comes as redis-py's exception. If it
            raises, that is logged and the connection ends.
        on_lost: told once when the connection ends, unless by ``close``.
    """

    def __init__(
        self,
        connection: Any,
        on_message: Callable[[Any], None],
        on_lost: Callable[[Exception], None],
    ) -> None:
        self._connection = connection
        self._on_message = on_message
        self._on_lost = on_lost
        self._is_open = True
        self._guard = Guard(log)
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=BaseParser.parse_error,
            notEnoughData=_NOT_YET,
        )
        # redis-py keeps it private (ADR 0005); tests/contract/test_wire.py notices a change.
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001
        self._transport.set_protocol(self)

    @property
    def peer(self) -> tuple[str, int]:
        """Host and port of the server, where it is reached over TCP."""
        return self._connection.host, self._connection.port

    def write(self, *command: str | int | bytes) -> None:
        """Send a command; a failure ends the connection and calls ``on_lost``.

        Raises:
            TypeError, ValueError: the command holds something that has no form in bytes.
        """
        self.send(hiredis.pack_command(command))  # type: ignore[arg-type] # its stub takes one

    def send(self, packed: bytes) -> None:
        """Send the bytes of a command; a failure ends the connection and calls ``on_lost``."""
        try:
            self._transport.write(packed)
        except Exception as error:  # noqa: BLE001 - uvloop raises where the transport is closed
            self._loop.call_soon(self._end, RedisConnectionError(f"sending failed: {error}"))

    def close(self) -> None:
        """Close at once; no callback is called any more."""
        self._is_open = False
        self._transport.abort()
        self._connection._close()  # noqa: SLF001 - disconnect() would need to be awaited

    def data_received(self, data: bytes) -> None:
        """Deliver complete replies and messages (asyncio calls this)."""
        if not self._is_open:
            return
        self._reader.feed(data)
        while self._is_open:
            try:
                message = self._reader.gets()
            except Exception as error:  # noqa: BLE001 - bytes that are no reply, and no text
                self._end(error)
                return
            if message is _NOT_YET:
                return
            if not self._guard.call(self._on_message, message):
                # asyncio and uvloop would end it as well, and log what is in it.
                self._end(RedisConnectionError("a message could not be handled"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Report that the server closed the connection (asyncio calls this)."""
        self._end(exc or RedisConnectionError("the server closed the connection"))

    def _end(self, error: Exception) -> None:
        if self._is_open:
            self.close()
            self._guard.call(self._on_lost, error)


def read_json(text: bytes) -> Any:
    """Return the value of a reply's JSON, around which its script writes no space.

    `json.loads` would look for spaces, and for other encodings: twice the price of the reading.
    """
    value, end = _JSON.raw_decode(decoded := text.decode("utf-8", "surrogatepass"))
    if end != len(decoded):
        raise ValueError(f"a reply goes on after its JSON with {decoded[end : end + 40]!r}")
    return value


def is_sendable(command: Sequence[object]) -> bool:
    """Whether every part of a command has a form in bytes."""
    try:
        hiredis.pack_command(tuple(command))  # type: ignore[arg-type] # as in Wire.write
    except (TypeError, ValueError):
        return False
    return True


async def open_wire(
    client: aioredis.Redis,
    on_message: Callable[[Any], None],
    on_lost: Callable[[Exception], None],
) -> Wire:
    """Open a connection from a client's pool for exclusive use.

    Raises:
        RedisError, OSError: the server could not be reached, or refused the login.
    """
    connection: Any = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.connect()
    except BaseException:  # a cancellation too, which redis-py leaves half open
        connection._close()  # noqa: SLF001 - as in Wire.close
        raise
    return Wire(connection, on_message, on_lost)
