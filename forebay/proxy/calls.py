"""Reads the body of a call, and notices when its client closes the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Final, Self

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LINGER_SECONDS: Final = 10.0
"""Time for reading and dropping a too large body, so that its client gets the answer."""


class ClientGoneError(Exception):
    """The client closed its connection before its body had arrived."""


class BodyTooLargeError(Exception):
    """The body of a call is larger than the proxy takes."""


async def read_body(receive: Receive, length: str | None, most_bytes: int) -> bytes:
    """Return the body of a call.

    Args:
        receive: of ASGI.
        length: the header ``content-length``, where there is one.
        most_bytes: the largest body that is taken.

    Raises:
        ClientGoneError: the client left.
        BodyTooLargeError: it is larger; the rest was not read.
    """
    if length is not None and length.isdecimal() and int(length) > most_bytes:
        raise BodyTooLargeError
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > most_bytes:
            raise BodyTooLargeError
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def drop_rest(receive: Receive) -> None:
    """Read a body to its end, for a while, and drop it.

    A connection that is closed while its client still sends loses the answer on its way.
    """
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


class WhileConnected:
    """A block that is cancelled, and ends without an error, when the client closes its connection.

    Args:
        receive: of ASGI, after the body was read to its end.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._task = task
        self._watch = asyncio.create_task(self._wait())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._watch.cancel()
        if self._is_gone and isinstance(error, asyncio.CancelledError):
            return self._task.uncancel() == 0  # else the server has cancelled the call as well
        return False

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._task.cancel()
