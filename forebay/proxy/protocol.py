"""uvicorn's HTTP protocol with a bound on a request's head, and with errors as sentences."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from forebay.proxy.calls import LINGER_SECONDS
from forebay.proxy.error_responses import (
    HEAD_TOO_LARGE,
    MOST_HEAD_BYTES,
    NO_FORWARD_PROXY,
    NOT_HTTP,
    ErrorResponse,
)

_Base: Any = AutoHTTPProtocol  # of httptools where it is installed, else of h11


class BoundedProtocol(_Base):  # type: ignore[misc]
    """One connection; answers endless heads and foreign requests with an error.

    A head that has arrived whole is measured by `Forwarder`, which knows its API.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._is_refused = False

    def data_received(self, data: bytes) -> None:
        """Take the next bytes; refuse them where they are too many for a head."""
        if self._is_refused:
            return  # read on: a connection closed under its client's writes loses the answer
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES and not self._is_refused:
            self._refuse(HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Take a head; httptools alone calls this, and `send_400_response` for what it raises."""
        if not self.url.startswith(b"/"):
            raise ValueError("the target is no path")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """Answer an unreadable request with an error, and close the connection."""
        target = getattr(self, "url", b"")
        if len(target) > MOST_HEAD_BYTES:
            self._refuse(HEAD_TOO_LARGE)
        elif target and not target.startswith(b"/"):
            self._refuse(NO_FORWARD_PROXY)
        else:
            self._refuse(NOT_HTTP)

    def _refuse(self, error: ErrorResponse) -> None:
        self._is_refused = True
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering or not self.cycle.response_started:
            body = error.body(is_anthropic=False)
            headers = [*error.headers(body, {}), (b"connection", b"close")]
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            status = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
            self.transport.write(status + lines + b"\r\n" + body)
        if is_answering:
            self.transport.close()  # the call under way ends, as that of a client that has gone
        else:
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
