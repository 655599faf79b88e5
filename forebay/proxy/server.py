"""Runs the proxy: a member of the fleet, a transport that leases, and uvicorn in front of both."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from forebay.connecting import classify_raised
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server_connection import ServerConnection
from forebay.http_server import StoppableServer, health_of
from forebay.proxy.error_responses import MOST_HEAD_BYTES
from forebay.proxy.forwarding import Forwarder
from forebay.proxy.protocol import BoundedProtocol
from forebay.proxy.upstreams import Upstream, Upstreams
from forebay.proxy.waits import HoldReasons
from forebay.serving import BACKLOG
from forebay.transports import HttpResolver, transport

_KEEP_ALIVE_SECONDS: Final = 75
"""Longer than clients keep idle connections, so that a reused one is not closed under a request."""
_PROBE_AFTER_SECONDS: Final = 60
"""After this silence the kernel probes whether a connection's client is still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """The settings of a proxy.

    Attributes:
        url: URL of the server that the fleet shares.
        upstreams: the providers.
        max_parallel_requests: the cap with which each provider/model is registered.
        queue_seconds: longest wait of a call for its lease.
        most_bytes: the largest body that a call may send.
        grace_seconds: how long calls may go on after SIGTERM or SIGINT.
        token: what clients must send; None asks for nothing.
        member: the proxy's settings as a member of the fleet.
    """

    url: str
    upstreams: Sequence[Upstream]
    max_parallel_requests: int
    queue_seconds: float
    most_bytes: int
    grace_seconds: int
    token: str | None = None
    member: MemberSettings = field(default_factory=MemberSettings)


@contextlib.asynccontextmanager
async def proxy_app(settings: ProxySettings) -> AsyncIterator[Starlette]:
    """Join the fleet and give the application, for the length of a block.

    Raises:
        ConfigurationError: a setting is wrong.
        CoordinatorError: the server cannot be used.
    """
    upstreams = Upstreams(settings.upstreams)
    async with await ServerConnection.open(settings.url, settings.member) as connection:
        controller = AdaptiveRequestAdmissionController(connection, classify=classify_raised)
        sender = transport(
            controller,
            max_parallel_requests=settings.max_parallel_requests,
            resolve=HttpResolver(upstreams.providers),
            queue_wait_timeout_seconds=settings.queue_seconds,
        )
        forwarder = Forwarder(
            sender,
            upstreams,
            HoldReasons(controller.pressure),
            most_bytes=settings.most_bytes,
            token=settings.token,
        )
        try:
            yield Starlette(
                routes=[
                    Route("/healthz", health_of(connection)),
                    Mount("/", app=forwarder),
                ]
            )
        finally:
            await controller.close()
            await sender.aclose()


async def serve(
    settings: ProxySettings, listener: socket.socket, on_started: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT, then let calls end for the grace time.

    Args:
        settings: what it is started with.
        listener: where it listens; closed at the end.
        on_started: called once, when connections are accepted.

    Raises:
        ConfigurationError: a setting is wrong.
        CoordinatorError: the server of the fleet cannot be used.
    """
    _notice_vanished(listener)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # its errors are in the answers
    try:
        async with proxy_app(settings) as app:
            config = uvicorn.Config(
                app,
                access_log=False,
                backlog=BACKLOG,
                date_header=False,  # the provider's own is passed on
                h11_max_incomplete_event_size=2 * MOST_HEAD_BYTES,
                http=BoundedProtocol,
                lifespan="off",
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=settings.grace_seconds,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                ws="none",
            )
            await StoppableServer(config, on_started).serve(sockets=[listener])
    finally:
        listener.close()


def _notice_vanished(listener: socket.socket) -> None:
    """Let the kernel probe silent connections; accepted ones inherit it."""
    if listener.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER_SECONDS)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
