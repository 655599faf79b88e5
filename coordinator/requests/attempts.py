"""One attempt as a block or a decorated call: acquire, run, read the outcome, release.

Rules: design 03.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from forebay.contracts.checks import check_type, shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestGroupSpec, RequestResourceKey
from forebay.contracts.outcomes import (
    SUCCESS,
    ClassifyException,
    RateLimitScope,
    RequestOutcomeKind,
    RequestReleaseOutcome,
)
from forebay.contracts.requests import (
    RequestAdmissionController,
    RequestAdmissionItem,
    RequestAdmissionLease,
    new_attempt_id,
)
from forebay.coordinator.requests.classifying import UNCLASSIFIED, outcome_of
from forebay.coordinator.requests.threads import LoopCaller

P = ParamSpec("P")
R = TypeVar("R")


class RequestAttempt:
    """One provider call under one lease.

    ``async with`` on the controller's event loop, ``with`` in threads where none runs. Entering
    acquires; leaving releases, once, however the block ends. The outcome is the one set in the
    block (``outcome``, ``rate_limited``), else ``success``, else what the controller's classifier
    reads from the exception, which goes on unchanged. The release is under way when the block is
    left and is not waited for: nobody pays a round trip, and this process's next acquire of the
    same provider/model is decided after it.

    Raises:
        RequestAdmissionError: on entering, denied; carries the reason.
        CoordinatorError: on entering, the shared state could not be used.
        ConfigurationError: on entering a second time, ``with`` where an event loop runs, or
            ``async with`` on a loop that is not the controller's.

    Attributes:
        item: what is asked.
    """

    __slots__ = (
        "_caller", "_classify", "_controller", "_is_left", "_is_used", "_lease", "_outcome",
        "item",
    )  # fmt: skip

    def __init__(
        self,
        item: RequestAdmissionItem,
        controller: RequestAdmissionController,
        caller: LoopCaller,
        classify: ClassifyException,
    ) -> None:
        check_type("item", item, RequestAdmissionItem)
        self.item = item
        self._controller = controller
        self._caller = caller
        self._classify = classify
        self._is_used = False
        self._is_left = False
        self._lease: RequestAdmissionLease | None = None
        self._outcome: RequestReleaseOutcome | None = None

    @property
    def lease(self) -> RequestAdmissionLease:
        """The lease under which the block runs.

        Raises:
            ConfigurationError: the block was not entered.
        """
        if self._lease is None:
            raise ConfigurationError(
                f"the attempt {self.item.attempt_id} has no lease yet; enter it with `async with`"
                " or `with` first."
            )
        return self._lease

    @property
    def outcome(self) -> RequestReleaseOutcome | None:
        """The outcome that the block sets itself; it takes precedence over any exception.

        Raises:
            ConfigurationError: set outside the block, or to something else.
        """
        return self._outcome

    @outcome.setter
    def outcome(self, outcome: RequestReleaseOutcome) -> None:
        check_type("the attempt's outcome", outcome, RequestReleaseOutcome)
        if self._lease is None or self._is_left:
            raise ConfigurationError(
                f"the outcome of attempt {self.item.attempt_id} was set outside its block, where it"
                " changes nothing; set it inside."
            )
        self._outcome = outcome

    def rate_limited(
        self,
        *,
        retry_after_seconds: float | None = None,
        provider_status: int | None = 429,
        scope: RateLimitScope | None = None,
    ) -> None:
        """Report a rate limit of the provider as the outcome, which lowers the window.

        Args:
            retry_after_seconds: the provider's hint; None where it gave none.
            provider_status: the HTTP status.
            scope: ``quota`` where the hint says when a budget is refilled: nobody asks until then,
                and the window stays as it is.
        """
        self.outcome = RequestReleaseOutcome(
            kind=RequestOutcomeKind.RATE_LIMITED,
            retry_after_seconds=retry_after_seconds,
            scope=scope,
            provider_status=provider_status,
        )

    async def __aenter__(self) -> Self:
        self._caller.require_own_loop()
        self._use()
        self._lease = await self._controller.acquire(self.item)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release(error)

    def __enter__(self) -> Self:
        self._use()
        self._lease = self._controller.acquire_sync(self.item)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release(error)

    def _use(self) -> None:
        if self._is_used:
            raise ConfigurationError(
                f"the attempt {self.item.attempt_id} was entered before; make one per provider"
                " call, with an item of its own: requests.attempt(RequestAdmissionItem(...))."
            )
        self._is_used = True

    def _release(self, error: BaseException | None) -> None:
        self._is_left = True
        outcome = self._outcome
        try:
            if outcome is None:
                outcome = SUCCESS if error is None else outcome_of(error, self._classify)
        finally:
            # A generator may be closed by any thread, so where this runs is looked up, not known.
            self._caller.send(self._controller.release, self.lease, outcome or UNCLASSIFIED)


def limited(
    attempt: Callable[[RequestAdmissionItem], RequestAttempt],
    resource: RequestResourceKey,
    *,
    group: RequestGroupSpec | None = None,
    queue_wait_timeout_seconds: float | None = None,
    cost: int | None = None,
    takes_async: bool = True,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that runs each call as an attempt of its own.

    Args:
        attempt: makes the attempt; async functions enter it with ``async with``, others ``with``.
        resource: what the calls need a lease of.
        group: who asks.
        queue_wait_timeout_seconds: longest wait of each call.
        cost: estimated tokens of each call.
        takes_async: whether an event loop is there that could run async functions.

    Raises:
        ConfigurationError: when decorating what is no function, an async one that nothing could
            run, or a generator function. Its lease would be held between the caller's steps, so
            where it begins and ends is for the generator to say.
    """
    item = RequestAdmissionItem(
        resource=resource,
        group=group or RequestGroupSpec(),
        queue_wait_timeout_seconds=queue_wait_timeout_seconds,
        cost=cost,
    )

    def fresh() -> RequestAttempt:
        return attempt(replace(item, attempt_id=new_attempt_id()))

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if not callable(function):
            raise ConfigurationError(
                f"`limited` was given {shown(function)}, expected a function; decorate one."
            )
        if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
            raise ConfigurationError(
                f"{function!r} is a generator function, which `limited` does not take; enter"
                " requests.attempt(item) inside it, around what is streamed."
            )
        if _is(inspect.iscoroutinefunction, function):
            if not takes_async:
                raise ConfigurationError(
                    f"{function!r} is async, and `with forebay.connect(...)` is for programs"
                    " without an event loop; use `async with forebay.connect(...)`."
                )

            @functools.wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with fresh():
                    return await cast("Awaitable[Any]", function(*args, **kwargs))

            return cast("Callable[P, R]", call_async)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with fresh():
                return function(*args, **kwargs)

        return call

    return decorate


def _is(kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Whether a predicate holds for a function, or for a callable object's ``__call__``."""
    return kind(function) or kind(type(function).__call__)
