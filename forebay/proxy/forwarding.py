"""The proxy's ASGI application: each call is sent on under a lease, its answer byte for byte."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.logs import Logger
from forebay.proxy.calls import (
    BodyTooLargeError,
    ClientGoneError,
    Message,
    Receive,
    Send,
    WhileConnected,
    drop_rest,
    read_body,
)
from forebay.proxy.headers import by_name, request_headers, response_headers
from forebay.proxy.refusals import STOPPING, Refusal, refusal_of
from forebay.proxy.upstreams import Destination, Upstreams
from forebay.proxy.waits import HoldReasons, QueueWait
from forebay.transports.groups import current_group
from forebay.transports.queueing import QUEUE_EXTENSION

TOKEN_HEADER: Final = "x-forebay-token"  # noqa: S105 - a name
STALL_SECONDS: Final = 600.0
"""Longest pause of a provider, as in the SDKs' own timeouts, and of a client that does not read."""
CONNECT_SECONDS: Final = 10.0

_TIMEOUTS: Final = {
    "connect": CONNECT_SECONDS,
    "read": STALL_SECONDS,
    "write": STALL_SECONDS,
    "pool": None,
}
_FAILED: Final = Refusal(
    status=500,
    code="unexpected_exception",
    message="the call failed for a reason that nobody foresaw; see the proxy's log, and report it.",
)

log = Logger("forebay.proxy")


@dataclass(slots=True, eq=False)
class Call:
    """One client's call, and the answer that is sent to it.

    Attributes:
        send: of ASGI.
        is_anthropic: whether it speaks Anthropic's API, for answers of the proxy's own.
        wait: its wait in the queue.
        has_begun: whether an answer has begun.
    """

    send: Send
    is_anthropic: bool
    wait: QueueWait
    has_begun: bool = False

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send status and headers."""
        self.has_begun = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def pass_on(self, part: bytes, *, is_last: bool = False) -> None:
        """Send a part of the body, at the speed at which the client reads.

        Raises:
            TimeoutError: the client has read nothing for long.
        """
        message: Message = {"type": "http.response.body", "body": part, "more_body": not is_last}
        async with asyncio.timeout(STALL_SECONDS):
            await self.send(message)

    async def refuse(self, refusal: Refusal, unread: Receive | None = None) -> None:
        """Send an answer of the proxy's own, unless an answer has begun.

        Args:
            refusal: the answer.
            unread: receives what the client may still be sending.
        """
        if self.has_begun:
            return  # the server cuts a connection whose answer has no end
        body = refusal.body(is_anthropic=self.is_anthropic)
        await self.begin(refusal.status, refusal.headers(body, self.wait.headers()))
        await self.pass_on(body)
        if unread is not None:
            await drop_rest(unread)
        await self.pass_on(b"", is_last=True)


class Forwarder:
    """Sends calls on, each under a lease of the fleet.

    Args:
        transport: sends requests under leases (`forebay.transport`).
        upstreams: where they go.
        reasons: says what holds calls up.
        most_bytes: the largest body that a call may send.
        token: what clients must send in ``x-forebay-token``; None asks for nothing.
    """

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport,
        upstreams: Upstreams,
        reasons: HoldReasons,
        *,
        most_bytes: int,
        token: str | None = None,
    ) -> None:
        self._transport = transport
        self._upstreams = upstreams
        self._reasons = reasons
        self._most_bytes = most_bytes
        self._token = token

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one call; the interface of ASGI."""
        if scope["type"] != "http":
            return
        headers = by_name(scope["headers"])
        is_anthropic = "anthropic-version" in headers or scope["path"].endswith("/v1/messages")
        call = Call(send, is_anthropic, QueueWait(self._reasons))
        try:
            await self._answer(scope, headers, receive, call)
        except ClientGoneError:
            return
        except BodyTooLargeError:
            await call.refuse(self._too_large(), receive)
        except asyncio.CancelledError:  # by the server, whose time to stop is over
            await call.refuse(STOPPING)
        except Exception as error:  # noqa: BLE001 - an error of one call ends no other
            log.unexpected("proxy_call_failed", error)
            await call.refuse(_FAILED)

    async def _answer(
        self, scope: Mapping[str, Any], headers: Mapping[str, str], receive: Receive, call: Call
    ) -> None:
        if not self._is_allowed(headers):
            refusal = Refusal(
                status=401,
                code="invalid_token",
                message=f"the header {TOKEN_HEADER} is missing or wrong; send the proxy's --token.",
            )
            await call.refuse(refusal, receive)
            return
        try:
            destination = self._upstreams.destination_of(scope, headers)
        except ConfigurationError as error:
            refusal = Refusal(status=400, code="invalid_request", message=str(error))
            await call.refuse(refusal, receive)
            return
        body = await read_body(receive, headers.get("content-length"), self._most_bytes)
        async with WhileConnected(receive):
            await self._forward(scope, destination, body, call)

    async def _forward(
        self, scope: Mapping[str, Any], destination: Destination, body: bytes, call: Call
    ) -> None:
        upstream = destination.upstream
        current_group.set(destination.group)  # of this call's own task
        try:
            request = httpx2.Request(
                scope["method"],
                httpx2.URL(
                    scheme=upstream.scheme,
                    host=upstream.host,
                    port=upstream.port,
                    raw_path=destination.raw_path,
                ),
                headers=request_headers(scope["headers"], upstream.authority, body),
                content=body,
                extensions={
                    "timeout": _TIMEOUTS,
                    "target": destination.raw_path,  # as it came: a URL would quote some of it
                    QUEUE_EXTENSION: call.wait,
                },
            )
            response = await self._transport.handle_async_request(request)
        except Exception as error:
            refusal = refusal_of(error, upstream.name)
            if refusal is None:
                raise
            await call.refuse(refusal)
            return
        try:
            own = call.wait.headers()
            await call.begin(response.status_code, response_headers(response.headers.raw, own))
            last = await _pass_body(response, call)
        except (httpx2.TransportError, TimeoutError) as error:
            # The client sees what it would see of the provider: an answer without an end.
            log.info("answer_broken_off", upstream=upstream.name, reason=type(error).__name__)
            return
        finally:
            await response.aclose()
        await call.pass_on(last, is_last=True)

    def _is_allowed(self, headers: Mapping[str, str]) -> bool:
        if self._token is None:
            return True
        given = headers.get(TOKEN_HEADER, "")
        return hmac.compare_digest(given.encode("latin-1"), self._token.encode())

    def _too_large(self) -> Refusal:
        return Refusal(
            status=413,
            code="body_too_large",
            message=(
                f"the body is larger than {self._most_bytes} bytes; send less, or raise the proxy's"
                " --max-body-mb."
            ),
        )


async def _pass_body(response: httpx2.Response, call: Call) -> bytes:
    """Pass a body on as it comes, undecoded; return the part to be sent together with the end.

    This is the last part where the length is known, so that a short answer is one write; else b"".
    """
    stated = response.headers.get("content-length", "")
    length = int(stated) if stated.isdecimal() else -1
    passed = 0
    last = b""
    stream: Any = response.stream
    async with aclosing(aiter(stream)) as parts:
        async for part in parts:
            passed += len(part)
            if passed == length:
                last = part
            elif part:
                await call.pass_on(part)
    return last
