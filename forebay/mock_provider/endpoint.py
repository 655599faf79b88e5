"""Serves one model request over ASGI: decide, take the time it takes, answer.

Plain ASGI rather than Starlette's request and response, because the slot has to be free before
the last byte is sent, and because a client that leaves must free it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from forebay.mock_provider import responses
from forebay.mock_provider.budget import BudgetLeft
from forebay.mock_provider.calls import InvalidCallError, ModelCall
from forebay.mock_provider.dialects import WORDINGS, Refused
from forebay.mock_provider.responses import Headers
from forebay.mock_provider.state import (
    CLIENT_LEFT,
    FAILED,
    Caller,
    ProviderState,
    Refusal,
    Service,
)
from forebay.mock_provider.stream_faults import OVERLOADS

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_JSON = b"application/json"
_KEPT_CHARACTERS = 256
"""Most characters of a client's name that are logged."""


class ClientLeftError(Exception):
    """The client closed the connection before it had its answer."""


class ErrorBody(Protocol):
    """Encodes an error in the shape of one API."""

    def __call__(
        self,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> bytes:
        """Return the body."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The wording of an API for errors and headers."""

    error_body: ErrorBody
    budget_headers: Callable[[Sequence[BudgetLeft]], Headers]


OPENAI: Final = Dialect(error_body=responses.error_body, budget_headers=responses.budget_headers)


class ModelEndpoint:
    """The ASGI app of one limited path.

    Args:
        state: the provider.
        path: as the log names it.
        understand: reads a call's body.
        dialect: how the API words errors.
        wording: the provider whose refusals are sent; "" for the truth's ``dialect``, None for
            those of ``dialect``.
    """

    def __init__(
        self,
        state: ProviderState,
        path: str,
        understand: Callable[[bytes, ProviderState], ModelCall],
        dialect: Dialect = OPENAI,
        *,
        wording: str | None = "",
    ) -> None:
        self._state = state
        self._path = path
        self._understand = understand
        self._dialect = dialect
        self._wording = wording

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request, and see that it is logged exactly once."""
        state = self._state
        tag = header_of(scope, b"x-forebay-tag")
        caller = Caller(
            path=self._path,
            arrived_at=state.elapsed_seconds(),
            tag=_kept(tag.decode("latin-1")) if tag is not None else None,
        )
        try:
            call = self._understand(_with_model(await _read_body(receive), scope), state)
        except InvalidCallError as exc:
            state.note(caller, HTTPStatus.BAD_REQUEST)
            body = self._dialect.error_body(str(exc), param=exc.param)
            await respond(send, HTTPStatus.BAD_REQUEST, body, self._budget_headers())
            return
        except ClientLeftError:
            state.note(caller, CLIENT_LEFT)
            return
        user = _kept(call.user) if call.user is not None else None
        caller = replace(caller, model=_kept(call.model), user=user, digest=call.digest)
        decision = state.admit(caller, tokens=call.total_tokens, digest=call.digest)
        if isinstance(decision, Refusal):
            refused = self._worded(decision)
            await respond(send, refused.status, refused.body, refused.headers)
            return
        # A server may tell by an OSError that the client left while something was sent.
        with decision as service, contextlib.suppress(ClientLeftError, OSError):
            await self._serve(service, call, receive, send)

    def _worded(self, refusal: Refusal) -> Refused:
        """Word a refusal as this path's API does, or as the truth's dialect wants."""
        if self._wording is None:
            body = self._dialect.error_body(
                refusal.message, kind="rate_limit_error", code="rate_limit_exceeded"
            )
            headers = self._budget_headers() + responses.refusal_headers(refusal)
            return Refused(status=refusal.status, headers=headers, body=body)
        name = self._wording or self._state.truth.dialect
        refused = WORDINGS[name](refusal, self._state.budgets_left())
        tells_budgets = name in {"openai", "azure", "groq", "mistral"}
        headers = refused.headers + (self._budget_headers() if tells_budgets else [])
        return replace(refused, headers=headers)

    async def _serve(self, service: Service, call: ModelCall, receive: Receive, send: Send) -> None:
        headers = self._budget_headers()
        await _wait(receive, service.latency_seconds)
        if service.fails:
            body = self._dialect.error_body(
                "The server had an error while processing your request.", kind="server_error"
            )
            service.finish(FAILED)
            await respond(send, FAILED, body, headers)
        elif call.events is None:
            body = call.body()
            service.finish(HTTPStatus.OK)
            await respond(send, HTTPStatus.OK, body, headers)
        else:
            truth = self._state.truth
            breaks_off = self._state.draws.breaks_off(truth)
            last_event = OVERLOADS[self._stream_dialect()] if breaks_off else call.last_event
            start = [(b"content-type", b"text/event-stream; charset=utf-8"), *headers]
            await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": start})
            for number, event in enumerate(call.events(truth.stream_chunk_count)):
                if number:
                    await _wait(receive, truth.stream_chunk_delay_seconds)
                await send({"type": "http.response.body", "body": event, "more_body": True})
            service.finish(HTTPStatus.OK)
            await send({"type": "http.response.body", "body": last_event})

    def _stream_dialect(self) -> str:
        if self._dialect is not OPENAI:  # Claude's events are the same everywhere
            return "anthropic"
        name = self._wording or self._state.truth.dialect
        return name if name in OVERLOADS else "openai"

    def _budget_headers(self) -> Headers:
        return self._dialect.budget_headers(self._state.budgets_left())


def header_of(scope: Scope, name: bytes) -> bytes | None:
    """Return the value of a request header by its lower-case name, or None."""
    for key, value in scope.get("headers", ()):
        if key == name:
            return bytes(value)
    return None


async def respond(send: Send, status: int, body: bytes, headers: Headers | None = None) -> None:
    """Send a whole JSON answer."""
    length = b"%d" % len(body)
    start = [(b"content-type", _JSON), (b"content-length", length), *(headers or ())]
    await send({"type": "http.response.start", "status": int(status), "headers": start})
    await send({"type": "http.response.body", "body": body})


async def _read_body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _wait(receive: Receive, seconds: float) -> None:
    """Wait for the service time; end early when the client leaves, to free its slot."""
    if seconds <= 0:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
            raise ClientLeftError


def _with_model(body: bytes, scope: Scope) -> bytes:
    """Put the model that a path names into the body, where other APIs have it."""
    model = scope.get("path_params", {}).get("model")
    if model is None:
        return body
    try:
        found = json.loads(body)
    except ValueError:
        return body
    return json.dumps({**found, "model": model}).encode() if isinstance(found, dict) else body


def _kept(name: str) -> str:
    return name[:_KEPT_CHARACTERS]
