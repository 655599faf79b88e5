"""The proxy's ASGI application: each call is sent on under a lease, its answer byte for byte."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from typing import Any, Final

import httpx2

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.logs import Logger
from forebay.proxy.calls import (
    BodyTooLargeError,
    ClientGoneError,
    Receive,
    Send,
    WhileConnected,
    read_body,
)
from forebay.proxy.client_response import STALL_SECONDS, ClientResponse
from forebay.proxy.error_responses import (
    HEAD_TOO_LARGE,
    MOST_HEAD_BYTES,
    NO_WEBSOCKETS,
    STOPPING,
    ErrorResponse,
    error_response_of,
)
from forebay.proxy.headers import by_name, is_anthropic, request_headers, response_headers
from forebay.proxy.upstreams import Destination, UnknownUpstreamError, Upstreams
from forebay.proxy.waits import HoldReasons, QueueWait
from forebay.transports.groups import current_group
from forebay.transports.queueing import QUEUE_EXTENSION

TOKEN_HEADER: Final = "x-forebay-token"  # noqa: S105 - a name
CONNECT_SECONDS: Final = 10.0

_TIMEOUTS: Final = {
    "connect": CONNECT_SECONDS,
    "read": STALL_SECONDS,
    "write": STALL_SECONDS,
    "pool": None,
}
_FAILED: Final = ErrorResponse(
    status=500,
    code="unexpected_exception",
    message="the call failed for a reason that nobody foresaw; see the proxy's log, and report it.",
)

log = Logger("forebay.proxy")


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
        client = ClientResponse(
            send,
            is_anthropic=is_anthropic(scope["path"], headers),
            takes_chunks=scope["http_version"] != "1.0",
            wait=QueueWait(self._reasons),
        )
        try:
            error = self._refusal_of(scope, headers)
            if error is not None:
                await client.refuse(error, receive)
                return
            await self._answer(scope, headers, receive, client)
        except ClientGoneError:
            return
        except BodyTooLargeError:
            await client.refuse(self._too_large(), receive)
        except asyncio.CancelledError:  # by the server, whose time to stop is over
            await client.refuse(STOPPING)
        except Exception as error:  # noqa: BLE001 - an error of one call ends no other
            log.unexpected("proxy_call_failed", error)
            await client.refuse(_FAILED)

    def _refusal_of(
        self, scope: Mapping[str, Any], headers: Mapping[str, str]
    ) -> ErrorResponse | None:
        """Return the error for a call that its head alone rules out; None for any other."""
        if _head_bytes(scope) > MOST_HEAD_BYTES:
            return HEAD_TOO_LARGE
        if not self._is_allowed(headers):
            return ErrorResponse(
                status=401,
                code="invalid_token",
                message=f"the header {TOKEN_HEADER} is missing or wrong; send the proxy's --token.",
            )
        if headers.get("upgrade", "").lower() == "websocket":
            return NO_WEBSOCKETS
        return None

    async def _answer(
        self,
        scope: Mapping[str, Any],
        headers: Mapping[str, str],
        receive: Receive,
        client: ClientResponse,
    ) -> None:
        try:
            destination = self._upstreams.destination_of(scope, headers)
        except UnknownUpstreamError as error:
            unknown = ErrorResponse(status=404, code="unknown_upstream", message=str(error))
            await client.refuse(unknown, receive)
            return
        except ConfigurationError as error:
            wrong = ErrorResponse(status=400, code="invalid_request", message=str(error))
            await client.refuse(wrong, receive)
            return
        body = await read_body(receive, headers.get("content-length"), self._most_bytes)
        async with WhileConnected(receive):
            await self._forward(scope, destination, body, client)

    async def _forward(
        self,
        scope: Mapping[str, Any],
        destination: Destination,
        body: bytes,
        client: ClientResponse,
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
                    QUEUE_EXTENSION: client.wait,
                },
            )
            response = await self._transport.handle_async_request(request)
        except Exception as error:
            known = error_response_of(error, upstream.name)
            if known is None:
                raise
            await client.refuse(known)
            return
        try:
            headers = response_headers(
                response.headers.raw, client.wait.headers(), destination.location_for_client
            )
            await client.pass_on(response, headers, most_kept_bytes=self._most_bytes)
        except (httpx2.TransportError, TimeoutError) as error:
            # The client sees what it would see of the provider: an answer without an end.
            log.info("answer_broken_off", upstream=upstream.name, reason=type(error).__name__)

    def _is_allowed(self, headers: Mapping[str, str]) -> bool:
        if self._token is None:
            return True
        given = headers.get(TOKEN_HEADER, "")
        return hmac.compare_digest(given.encode("latin-1"), self._token.encode())

    def _too_large(self) -> ErrorResponse:
        return ErrorResponse(
            status=413,
            code="body_too_large",
            message=(
                f"the body is larger than {self._most_bytes} bytes; send less, or raise the proxy's"
                " --max-body-mb."
            ),
        )


def _head_bytes(scope: Mapping[str, Any]) -> int:
    """Return how large path, query and headers of a request are."""
    fields = sum(len(name) + len(value) for name, value in scope["headers"])
    return len(scope["raw_path"]) + len(scope["query_string"]) + fields
