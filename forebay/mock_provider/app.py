"""The mock provider as an ASGI app: vendors' endpoints, and those for its hidden truth and log."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import how_to_install
from forebay.mock_provider import anthropic_api, responses
from forebay.mock_provider.calls import understand_chat, understand_embeddings
from forebay.mock_provider.endpoint import Dialect, ModelEndpoint, header_of, respond
from forebay.mock_provider.foreign_apis import ROUTES
from forebay.mock_provider.state import Caller, ProviderState
from forebay.mock_provider.truth import ProviderTruth

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError as exc:
    raise ConfigurationError(
        f"the mock provider needs starlette, which is not installed; run {how_to_install('mock')}."
    ) from exc

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_OPEN_PATH = "/healthz"
_PUBLISHED = "/v1/projects/{project}/locations/{location}/publishers/anthropic/models"
_CLAUDE_PATHS = (
    ("bedrock", "/model/{model}/invoke"),
    ("vertex", _PUBLISHED + "/{model}:rawPredict"),
    ("vertex", _PUBLISHED + "/{model}:streamRawPredict"),
)
"""Paths of other providers' Claude models -> the dialect of their refusals."""


def create_app(
    truth: ProviderTruth | None = None,
    *,
    seed: int = 0,
    api_key: str | None = None,
    state: ProviderState | None = None,
) -> Starlette:
    """Make the mock provider's ASGI app; its state is ``app.state.provider``.

    ``POST /v1/chat/completions``, ``/v1/embeddings``, Anthropic's ``/v1/messages`` and the chat
    calls of Azure, Gemini, Bedrock, Cohere, Ollama and TGI are limited by the truth; ``GET
    /v1/models`` and ``GET /healthz`` are not. ``GET /truth`` shows truth and counters, ``POST
    /truth`` changes the truth, and ``GET /log?since=N`` lists what was seen from record N.

    Args:
        truth: what the provider can take; no limits when not given.
        seed: makes answers, latencies and errors the same in each run.
        api_key: when given, everything but ``/healthz`` wants it.
        state: a state of the caller's own, instead of ``truth`` and ``seed``.
    """
    provider = state or ProviderState(truth or ProviderTruth(), seed=seed)
    chat, embeddings, messages = "/v1/chat/completions", "/v1/embeddings", "/v1/messages"
    claude = Dialect(
        error_body=anthropic_api.error_body, budget_headers=anthropic_api.budget_headers
    )
    chats = ModelEndpoint(provider, chat, understand_chat)
    claudes = ModelEndpoint(
        provider, messages, anthropic_api.understand_messages, claude, wording=None
    )
    routes = [
        Route(chat, chats, methods=["POST"]),
        Route(
            embeddings,
            ModelEndpoint(provider, embeddings, understand_embeddings),
            methods=["POST"],
        ),
        Route("/openai/v1/chat/completions", chats, methods=["POST"]),
        Route(messages, claudes, methods=["POST"]),
        Route("/anthropic/v1/messages", claudes, methods=["POST"]),
        *_deployments(provider),
        *_foreign_apis(provider),
        Route("/v1/models", _models, methods=["GET"]),
        Route("/truth", _show_truth, methods=["GET"]),
        Route("/truth", _change_truth, methods=["POST"]),
        Route("/log", _show_log, methods=["GET"]),
        Route(_OPEN_PATH, _health, methods=["GET"]),
    ]
    middleware = []
    if api_key is not None:
        middleware.append(Middleware(RequireKey, api_key=api_key, provider=provider))
    app = Starlette(
        routes=routes, middleware=middleware, exception_handlers={HTTPException: _no_such_thing}
    )
    app.state.provider = provider
    return app


def _deployments(provider: ProviderState) -> list[Route]:
    """Return the paths of Azure: a deployment's name stands for the model."""
    calls = (("chat/completions", understand_chat), ("embeddings", understand_embeddings))
    paths = [(f"/openai/deployments/{{model}}/{end}", understand) for end, understand in calls]
    return [
        Route(path, ModelEndpoint(provider, path, understand, wording="azure"), methods=["POST"])
        for path, understand in paths
    ]


def _foreign_apis(provider: ProviderState) -> list[Route]:
    """Return the paths of APIs that are neither OpenAI's nor Anthropic's."""
    claude = Dialect(
        error_body=anthropic_api.error_body, budget_headers=anthropic_api.budget_headers
    )
    messages = anthropic_api.understand_messages
    routes = []
    for name, path in _CLAUDE_PATHS:
        endpoint = ModelEndpoint(provider, path, messages, claude, wording=name)
        routes.append(Route(path, endpoint, methods=["POST"]))
    for name, path, understand in ROUTES:
        endpoint = ModelEndpoint(provider, path, understand, wording=name)
        routes.append(Route(path, endpoint, methods=["POST"]))
    return routes


class RequireKey:
    """ASGI middleware that wants the key as a bearer token, or as ``x-api-key``."""

    def __init__(self, app: ASGIApp, *, api_key: str, provider: ProviderState) -> None:
        self._app = app
        self._key = api_key.encode()
        self._provider = provider

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 and log that."""
        bearer = header_of(scope, b"authorization") or b""
        given = header_of(scope, b"x-api-key") or b""
        allowed = (
            scope.get("path") == _OPEN_PATH
            or hmac.compare_digest(bearer, b"Bearer " + self._key)
            or hmac.compare_digest(given, self._key)
        )
        if scope["type"] != "http" or allowed:
            await self._app(scope, receive, send)
            return
        caller = Caller(path=scope["path"], arrived_at=self._provider.elapsed_seconds())
        self._provider.note(caller, HTTPStatus.UNAUTHORIZED)
        body = responses.error_body(
            "Incorrect API key; send the mock provider's key as 'Authorization: Bearer KEY'.",
            code="invalid_api_key",
        )
        await respond(send, HTTPStatus.UNAUTHORIZED, body)


def _provider_of(request: Request) -> ProviderState:
    provider = request.app.state.provider
    if not isinstance(provider, ProviderState):
        raise TypeError(f"app.state.provider: expected a ProviderState, got {provider!r}")
    return provider


def _json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


async def _health(_request: Request) -> Response:
    return _json(b'{"status":"ok"}')


async def _models(_request: Request) -> Response:
    return _json(responses.models_body())


async def _show_truth(request: Request) -> Response:
    provider = _provider_of(request)
    now = provider.settle()
    return _json(
        responses.encode(
            {
                "truth": provider.truth.model_dump(mode="json", exclude={"schedule"}),
                "counters": asdict(provider.counters),
                "seed": provider.seed,
                "elapsed_seconds": now,
                "started_at_unix": provider.started_at_unix,
            }
        )
    )


async def _change_truth(request: Request) -> Response:
    try:
        changes: Any = await request.json()
    except ValueError:
        changes = None
    if not isinstance(changes, dict):
        message = 'expected a JSON object of fields to change, such as {"concurrency": 8}'
        return _json(responses.error_body(message), 400)
    try:
        _provider_of(request).change_truth(changes)
    except ConfigurationError as exc:
        return _json(responses.error_body(str(exc)), 400)
    return await _show_truth(request)


async def _show_log(request: Request) -> Response:
    asked = request.query_params.get("since", "0")
    if not asked.isascii() or not asked.isdigit():
        message = "since: expected the index of a record, a whole number from 0"
        return _json(responses.error_body(message, param="since"), 400)
    records = _provider_of(request).log.since(int(asked))
    return _json(responses.encode([{"index": n, **asdict(record)} for n, record in records]))


async def _no_such_thing(request: Request, exc: Exception) -> Response:
    """Say 404 and 405 in the shape that OpenAI's clients understand."""
    if not isinstance(exc, HTTPException):
        raise exc
    message = f"{exc.detail}: {request.method} {request.url.path}"
    return _json(responses.error_body(message), exc.status_code, exc.headers)
