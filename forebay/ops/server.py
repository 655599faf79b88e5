"""The HTTP server of `forebay ops`: /metrics, /healthz, /api and the page; it changes nothing."""

from __future__ import annotations

import hmac
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from forebay.contracts.errors import ConfigurationError, ForebayError
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.keys import pool_shard, request_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import PoolReader
from forebay.http_server import StoppableServer, health_of
from forebay.ops.fleet import FleetReader
from forebay.ops.metrics import metrics_text
from forebay.ops.rows import fleet_rows, pool_row
from forebay.ops.watcher import Watcher
from forebay.serving import BACKLOG

COOKIE: Final = "forebay_ops_token"
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
INTERVAL_SECONDS: Final = 0.5
"""Between two looks at the fleet."""
_GRACE_SECONDS: Final = 1
"""Streams of events never end by themselves, so waiting longer gains nothing."""
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
_SCRIPTS: Final = ("page", "overview", "detail", "chart", "samples", "dom")
_PAGE_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in _SCRIPTS},
}
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpsSettings:
    """The settings of `forebay ops`.

    Attributes:
        url: URL of the server that the fleet shares.
        token: what readers must send; None asks for nothing.
        hosts: names in the header ``host`` that are answered, against DNS rebinding; or ``*``.
        labels: label in /metrics of each model that is named there.
    """

    url: str
    token: str | None = None
    hosts: Sequence[str] = LOOPBACK_NAMES
    labels: Mapping[ProviderModelKey, str] = field(default_factory=dict)


async def serve(
    settings: OpsSettings, listener: socket.socket, on_started: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: what it is started with.
        listener: where it listens; closed at the end.
        on_started: called once, when connections are accepted.

    Raises:
        ConfigurationError: a setting is wrong.
        CoordinatorError: the server of the fleet cannot be used at the start.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # its errors are in the answers
    try:
        async with await ServerConnection.open(settings.url, only_reads=True) as connection:
            reader = FleetReader(connection)
            async with Watcher(reader, INTERVAL_SECONDS) as watcher:
                config = uvicorn.Config(
                    ops_app(settings, connection, reader, watcher),
                    access_log=False,
                    backlog=BACKLOG,
                    lifespan="off",
                    log_config=None,
                    proxy_headers=False,
                    server_header=False,
                    timeout_graceful_shutdown=_GRACE_SECONDS,
                    ws="none",
                )
                await StoppableServer(config, on_started).serve(sockets=[listener])
    finally:
        listener.close()


def ops_app(
    settings: OpsSettings, connection: ServerConnection, reader: FleetReader, watcher: Watcher
) -> Starlette:
    """Return the application over a watcher that is open."""
    api = _Api(reader, watcher, connection)
    routes = [
        Route("/healthz", health_of(connection)),
        Route("/metrics", _metrics_of(settings, watcher)),
        Route("/api/fleet", api.fleet),
        Route("/api/history", api.history),
        Route("/api/events", api.events),
        Route("/api/model", api.model),
        Route("/api/pool", api.pool),
        Route("/api/stream", api.stream),
        *(Route(path, _file(*page)) for path, page in _PAGE_FILES.items()),
    ]
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=[*settings.hosts])]
    if settings.token is not None:
        guards.append(Middleware(_TokenGuard, token=settings.token))
    return Starlette(
        routes=routes, middleware=guards, exception_handlers={ForebayError: _unavailable}
    )


class _Api:
    """The JSON behind the page."""

    def __init__(self, reader: FleetReader, watcher: Watcher, connection: ServerConnection) -> None:
        self._reader = reader
        self._watcher = watcher
        self._connection = connection

    async def fleet(self, _request: Request) -> Response:
        """Answer with the fleet as it is now."""
        return _json(fleet_rows(await self._reader.look(with_events=False)))

    async def history(self, _request: Request) -> Response:
        """Answer with ten minutes of every window, by provider/model and domain."""
        return _json(self._watcher.history.rows())

    async def events(self, _request: Request) -> Response:
        """Answer with the last events of all shards, the oldest first."""
        return _json(list(self._watcher.events))

    async def model(self, request: Request) -> Response:
        """Answer with one provider/model and its last events, the newest first."""
        try:
            key = ProviderModelKey(
                provider_name=request.query_params.get("provider", ""),
                model_id=request.query_params.get("model", ""),
            )
        except ConfigurationError as error:
            return _json({"error": str(error)}, 400)
        shard = await self._reader.model(key)
        events = await self._reader.last_events(request_shard(key))
        return _json({"snapshot": shard.model_dump(mode="json"), "events": events})

    async def pool(self, request: Request) -> Response:
        """Answer with one pool and its last events, the newest first."""
        name = request.query_params.get("name", "")
        try:
            keys = pool_shard(name)
        except ConfigurationError as error:
            return _json({"error": str(error)}, 400)
        row = pool_row(name, await PoolReader(self._connection, keys).snapshot())
        return _json({"pool": row, "events": await self._reader.last_events(keys)})

    async def stream(self, _request: Request) -> Response:
        """Answer with each look at the fleet, as server-sent events."""
        return StreamingResponse(
            self._messages(), media_type="text/event-stream", headers=dict(_HEADERS)
        )

    async def _messages(self) -> AsyncIterator[str]:
        yield "retry: 1000\n\n"
        async for message in self._watcher.messages():
            yield f"data: {message}\n\n"


class _TokenGuard:
    """Allows requests with the token: as a bearer, in the cookie, or once as ``?token=``."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 to a request without the token; /healthz needs none."""
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        given = request.query_params.get("token")
        answer: ASGIApp = self._app
        if given is not None and self._is_token(given):  # out of the address bar and its history
            answer = RedirectResponse(request.url.path, status_code=303, headers=dict(_HEADERS))
            answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
        elif not any(self._is_token(text) for text in _tokens_of(request)):
            said = "a token is needed: open /?token=..., or send `authorization: Bearer ...`"
            answer = _json({"error": said}, 401)
        await answer(scope, receive, send)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token)


def _tokens_of(request: Request) -> list[str]:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    bearer = [credentials.strip()] if scheme.lower() == "bearer" else []
    return [*bearer, request.cookies.get(COOKIE, "")]


def _metrics_of(settings: OpsSettings, watcher: Watcher) -> Callable[[Request], Any]:
    async def metrics(_request: Request) -> Response:
        text = metrics_text(watcher, settings.labels)
        return Response(text, headers={**_HEADERS, "content-type": _METRICS_TYPE})

    return metrics


def _file(name: str, media_type: str) -> Callable[[Request], Any]:
    content = (files("forebay.ops") / "page" / name).read_bytes()

    async def page(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=dict(_HEADERS))

    return page


def _json(value: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(value, status, headers=dict(_HEADERS))


async def _unavailable(_request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 503)
