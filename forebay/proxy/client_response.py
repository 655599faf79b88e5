"""The response to a client's call: a provider's, byte for byte, or an error of the proxy's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from forebay.proxy.calls import Message, Receive, Send, drop_rest
from forebay.proxy.error_responses import TOO_LARGE_TO_KEEP, ErrorResponse
from forebay.proxy.headers import Header
from forebay.proxy.waits import QueueWait

STALL_SECONDS: Final = 600.0
"""Longest pause of a provider, as in the SDKs' own timeouts, and of a client that does not read."""

_WITHOUT_BODY: Final = frozenset({204, 304})


@dataclass(slots=True, eq=False)
class ClientResponse:
    """Sends the response to one client's call.

    Attributes:
        send: of ASGI.
        is_anthropic: whether the call is of Anthropic's API, for the proxy's own errors.
        takes_chunks: whether the client takes a body without a length, which HTTP/1.0 has not.
        wait: the call's wait in the queue.
        has_begun: whether status and headers were sent.
    """

    send: Send
    is_anthropic: bool
    takes_chunks: bool
    wait: QueueWait
    has_begun: bool = False

    async def pass_on(
        self, response: httpx2.Response, headers: list[Header], *, most_kept_bytes: int
    ) -> None:
        """Send a provider's response, its body as it comes; closes it.

        Args:
            response: the provider's; its body is still to be read.
            headers: what is sent in place of its own.
            most_kept_bytes: the largest body of unknown length that is kept for HTTP/1.0.

        Raises:
            httpx2.TransportError: the provider broke the body off.
            TimeoutError: the client has read nothing for long.
        """
        status = response.status_code
        try:
            if self.takes_chunks or _length_of(response) is not None or status in _WITHOUT_BODY:
                await self._begin(status, headers)
                last = await self._pass_parts(response)
            else:
                kept = await _kept_body(response, most_kept_bytes)
                if kept is None:
                    await self.refuse(TOO_LARGE_TO_KEEP)
                    return
                await self._begin(status, [*headers, (b"content-length", b"%d" % len(kept))])
                last = kept
        finally:
            await response.aclose()
        await self._send_part(last, is_last=True)

    async def _begin(self, status: int, headers: list[Header]) -> None:
        self.has_begun = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def _pass_parts(self, response: httpx2.Response) -> bytes:
        """Pass a body on undecoded; return the part to be sent together with the end.

        This is the last part where the length is known, so that a short answer is one write; else
        b"".
        """
        length = _length_of(response)
        passed = 0
        last = b""
        async with aclosing(_parts_of(response)) as parts:
            async for part in parts:
                passed += len(part)
                if passed == length:
                    last = part
                elif part:
                    await self._send_part(part)
        return last

    async def _send_part(self, part: bytes, *, is_last: bool = False) -> None:
        """Send a part of the body, as fast as the client reads.

        Raises:
            TimeoutError: the client has read nothing for long.
        """
        message: Message = {"type": "http.response.body", "body": part, "more_body": not is_last}
        async with asyncio.timeout(STALL_SECONDS):
            await self.send(message)

    async def refuse(self, error: ErrorResponse, unread: Receive | None = None) -> None:
        """Send an error of the proxy's own, unless a response has begun.

        Args:
            error: what is sent.
            unread: receives what the client may still be sending.
        """
        if self.has_begun:
            return  # the server cuts a connection whose answer has no end
        body = error.body(is_anthropic=self.is_anthropic)
        await self._begin(error.status, error.headers(body, self.wait.headers()))
        await self._send_part(body)
        if unread is not None:
            await drop_rest(unread)
        await self._send_part(b"", is_last=True)


def _length_of(response: httpx2.Response) -> int | None:
    """Return the length of a body, None where its headers do not state it."""
    stated = response.headers.get("content-length", "")
    return int(stated) if stated.isdecimal() else None


def _parts_of(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    stream: Any = response.stream
    parts: AsyncGenerator[bytes, None] = aiter(stream)
    return parts


async def _kept_body(response: httpx2.Response, most_bytes: int) -> bytes | None:
    """Return a whole body, None where it is too large to be kept."""
    kept = bytearray()
    async with aclosing(_parts_of(response)) as parts:
        async for part in parts:
            kept += part
            if len(kept) > most_bytes:
                return None
    return bytes(kept)
