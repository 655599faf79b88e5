"""A provider call as a request to the executor (design 03, *Executor*)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.events import RequestEventContext, captured_context
from forebay.contracts.identity import RequestGroupSpec, RequestResourceKey
from forebay.contracts.requests import RequestAdmissionItem, new_attempt_id
from forebay.workers.retries import check_max_attempts

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest(Generic[T]):
    """One provider call to be made, as often as it takes.

    Attributes:
        resource: the window it needs a lease of.
        call: makes the provider call once; each attempt calls it anew. Of what it returns, a
            ``usage`` (a `TokenUsage`, or as the SDKs and APIs have it) settles the quota; a numeric
            ``status`` or ``status_code``, ``headers`` and an ``error_code``, where they are there,
            are classified as an exception's would be.
        group: who asks.
        cost: estimated tokens of one attempt, for quotas.
        queue_wait_timeout_seconds: longest wait of each attempt in the queue.
        max_attempts: overrides the executor's `RetryPolicy`.
        event_context: correlation; None captures the caller's.

    Raises:
        ConfigurationError: ``max_attempts`` is below 1, or ``call`` is no function.
    """

    resource: RequestResourceKey
    call: Callable[[], Awaitable[T]] = field(repr=False)
    group: RequestGroupSpec = field(default_factory=RequestGroupSpec)
    cost: int | None = None
    queue_wait_timeout_seconds: float | None = None
    max_attempts: int | None = None
    event_context: RequestEventContext | None = None

    def __post_init__(self) -> None:
        if not callable(self.call):
            raise ConfigurationError(
                f"call of a model request is of type {type(self.call).__name__}, expected a"
                " function without arguments, which is called anew for each attempt; pass one, as"
                " in call=lambda: client.post(url, json=body)."
            )
        if self.max_attempts is not None:
            check_max_attempts(self.max_attempts)


def item_of(request: ModelRequest[Any]) -> RequestAdmissionItem:
    """Return the admission item of one attempt of a request, with a fresh attempt id."""
    attempt_id = new_attempt_id()
    given = request.event_context
    return RequestAdmissionItem(
        resource=request.resource,
        group=request.group,
        attempt_id=attempt_id,
        queue_wait_timeout_seconds=request.queue_wait_timeout_seconds,
        cost=request.cost,
        event_context=replace(given, request_attempt_id=attempt_id)
        if given
        else captured_context(attempt_id),
    )


def call_of(request: ModelRequest[T]) -> Awaitable[T]:
    """Make the provider call of a request once.

    Raises:
        ConfigurationError: it returned no awaitable, as a function that blocks does.
    """
    made = request.call()
    if inspect.isawaitable(made):
        return made
    raise ConfigurationError(
        f"call of a model request returned something of type {type(made).__name__}, expected an"
        " awaitable; make it async, or run what blocks by asyncio.to_thread."
    )
