"""One lease per outbound attempt, and the retries around attempts (design 03, *Executor*).

An attempt is acquire, call, classify, release. Every retry is an attempt of its own, with an id
and a lease of its own, and whatever is waited for between attempts is waited for without a lease
(design 01, *Invariants* 1 and 8).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from forebay.contracts.checks import check_methods, check_type
from forebay.contracts.errors import ConfigurationError, MembershipLost
from forebay.contracts.outcomes import ReleaseResult, RequestOutcomeKind, RequestReleaseOutcome
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.blocking import BlockingRequestAdmissionController
from forebay.coordinator.requests.classifying import UNCLASSIFIED
from forebay.workers.attempt_outcomes import AttemptOutcomes
from forebay.workers.model_request import ModelRequest, call_of, item_of
from forebay.workers.providers.classification import (
    NOT_SENT,
    Classifier,
    DefaultClassifier,
    check_classifier,
)
from forebay.workers.retries import RetryBudget, RetryPolicy

T = TypeVar("T")

log = Logger("forebay.executor")

in_executor: ContextVar[bool] = ContextVar("in_executor", default=False)
"""True within ``ModelRequest.call``: a transport below warns of retries that multiply by it."""


class LeaseHolder(Protocol):
    """The part of request admission that the executor needs."""

    async def acquire(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Wait for a lease; as `forebay.contracts.requests.RequestAdmissionController.acquire`."""
        ...

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> Awaitable[ReleaseResult]:
        """Release a lease; the release is sent at once, and never raises."""
        ...

    def assert_held(self, lease: RequestAdmissionLease) -> None:
        """Return if the member's last acknowledged heartbeat is younger than its TTL.

        Raises:
            MembershipLost: it is not, so the lease may already be someone else's.
        """
        ...

    def learn(self, lease: RequestAdmissionLease, readings: Sequence[QuotaReading]) -> None:
        """Take the quota readings of an answer's headers; returns at once."""
        ...


@dataclass(slots=True)
class _Trace:
    """The trace of an attempt: its outcome and its lease.

    Attributes:
        is_sent: whether its call was made.
        outcome: how it ended, once it has.
        release: the release of its lease; None when it got none.
    """

    is_sent: bool = False
    outcome: RequestReleaseOutcome = UNCLASSIFIED
    release: asyncio.Future[ReleaseResult] | None = None


@dataclass(frozen=True, slots=True)
class _Returned(Generic[T]):
    answer: T


@dataclass(frozen=True, slots=True)
class _Raised:
    error: Exception


class ModelRequestExecutor:
    """Makes provider calls under leases. One per job or process; `aclose` waits for its releases.

    A call through a leased transport (`forebay.http_client`) takes a second lease of its own.

    Args:
        controller: grants and takes back leases.
        classifier: reads how attempts ended.
        retry: how `execute` retries.
        retry_budget: shared bound of the retries; None is no such bound.
        clock: Unix time in seconds, for dates in headers.
        sleep: pauses between attempts.
        draw: random numbers from 0 to 1, for the jitter.

    Example:
        >>> async def call() -> str:
        ...     return "an answer"  # one provider call
        >>> async def main() -> None:
        ...     async with forebay.connect(url) as requests:
        ...         await requests.register(chat.provider_model, "mine", 8)
        ...         executor = forebay.ModelRequestExecutor(requests)
        ...         print(await executor.execute(forebay.ModelRequest(resource=chat, call=call)))
        ...         await executor.aclose()
        >>> asyncio.run(main())
        an answer

    Raises:
        ConfigurationError: an argument is of another kind.
    """

    def __init__(
        self,
        controller: LeaseHolder,
        *,
        classifier: Classifier | None = None,
        retry: RetryPolicy | None = None,
        retry_budget: RetryBudget | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        _check_controller(controller)
        if classifier is not None:
            check_classifier(classifier)
        if retry is not None:
            check_type("retry", retry, RetryPolicy)
        if retry_budget is not None:
            check_type("retry_budget", retry_budget, RetryBudget)
        self._controller = controller
        self._outcomes = AttemptOutcomes(
            DefaultClassifier() if classifier is None else classifier, controller.learn, clock
        )
        self._retry = RetryPolicy() if retry is None else retry
        self._budget = retry_budget
        self._sleep = sleep
        self._draw = draw
        self._releases: set[asyncio.Future[ReleaseResult]] = set()

    async def execute_attempt(self, request: ModelRequest[T]) -> T:
        """Make one attempt under one lease and return its answer.

        The lease is released however the attempt ends; its acknowledgement is not waited for.

        Raises:
            RequestAdmissionError, CoordinatorError: no lease was to be had; nothing was sent.
            MembershipLost: the lease may have ended before the call; nothing was sent.
            BaseException: whatever ``request.call`` raised, the same object.
        """
        return await self._attempt(request, _Trace())

    async def execute(self, request: ModelRequest[T]) -> T:
        """Make attempts until one succeeds, cannot be retried, or the policy is exhausted.

        A denied acquire is not retried here: the caller bounded that wait. Returns or raises as
        `execute_attempt` does, with the answer or the exception of the last call that was made.
        Where its retry got no lease, a note on the exception says why.
        """
        end = await self._last_end(request)
        try:
            if isinstance(end, _Raised):
                raise end.error
            return end.answer
        finally:
            del end  # else the exception would hold itself, by its traceback

    async def aclose(self) -> None:
        """Wait until every release that is under way has been answered."""
        while self._releases:
            await asyncio.wait(self._releases)

    async def _last_end(self, request: ModelRequest[T]) -> _Returned[T] | _Raised:
        """Make the attempts; return the result of the last call."""
        most = self._retry.max_attempts if request.max_attempts is None else request.max_attempts
        called: _Returned[T] | _Raised | None = None
        attempts = 0
        while True:
            attempts += 1
            trace = _Trace()
            end = await self._end(request, trace)
            if trace.is_sent:
                called = end
            if not (self._may_retry(end, trace) and attempts < most and self._may_spend()):
                break
            await self._pause(attempts, trace)
        if called is None or called is end:
            return end
        _note_no_lease(called, end)
        return called

    async def _end(self, request: ModelRequest[T], trace: _Trace) -> _Returned[T] | _Raised:
        try:
            return _Returned(await self._attempt(request, trace))
        except Exception as error:  # noqa: BLE001 - `execute` raises it
            return _Raised(error)

    async def _attempt(self, request: ModelRequest[T], trace: _Trace) -> T:
        lease = await self._controller.acquire(item_of(request))
        try:
            answer = await self._call(request, lease, trace)
            trace.outcome = self._outcomes.of_answer(lease, answer)
        finally:
            # Not awaited: a cancelled caller goes at once, and the release needs nobody to wait.
            trace.release = self._release(lease, trace.outcome)
        return answer

    async def _call(
        self, request: ModelRequest[T], lease: RequestAdmissionLease, trace: _Trace
    ) -> T:
        token = in_executor.set(True)
        try:
            self._controller.assert_held(lease)
            trace.is_sent = True
            return await call_of(request)
        except BaseException as error:
            trace.outcome = self._outcomes.of_error(lease, error) if trace.is_sent else NOT_SENT
            raise
        finally:
            in_executor.reset(token)

    def _release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> asyncio.Future[ReleaseResult]:
        release = asyncio.ensure_future(self._controller.release(lease, outcome))
        # The event loop holds tasks weakly: without this reference one could vanish midway.
        self._releases.add(release)
        release.add_done_callback(self._released)
        return release

    def _released(self, release: asyncio.Future[ReleaseResult]) -> None:
        self._releases.discard(release)
        if not release.cancelled() and (fault := release.exception()) is not None:
            log.unexpected("request_release_raised", fault)

    def _may_retry(self, end: _Returned[T] | _Raised, trace: _Trace) -> bool:
        """Return whether another attempt may succeed; notes successes."""
        if isinstance(end, _Raised):
            if not trace.is_sent:
                # A member that was expired joins anew with the next acquire.
                return isinstance(end.error, MembershipLost)
        elif trace.outcome.kind is RequestOutcomeKind.SUCCESS:
            if self._budget is not None:
                self._budget.give_back()
            return False
        return self._outcomes.is_retryable(trace.outcome)

    def _may_spend(self) -> bool:
        return self._budget is None or self._budget.take()

    async def _pause(self, attempts: int, trace: _Trace) -> None:
        has_released = trace.release is not None and await _has_released(trace.release)
        if has_released and trace.outcome.kind is RequestOutcomeKind.RATE_LIMITED:
            return  # the attempt waits in the queue for the cooldown that its release has set
        seconds = self._retry.pause_seconds(attempts, trace.outcome, self._draw)
        if seconds > 0:
            await self._sleep(seconds)


def _check_controller(controller: object) -> None:
    remedy = "pass what `async with forebay.connect(url) as requests` gives"
    if isinstance(controller, BlockingRequestAdmissionController):
        raise ConfigurationError(
            "controller of an executor is the one of `with forebay.connect(...)`, which blocks its"
            f" thread, expected one on an event loop; {remedy}."
        )
    names = ("acquire", "release", "assert_held", "learn")
    check_methods("controller of an executor", controller, names, remedy)


async def _has_released(release: asyncio.Future[ReleaseResult]) -> bool:
    """Wait for a release; return whether its lease was still held."""
    # asyncio.wait cancels and raises nothing of the release, whatever happens to this caller.
    await asyncio.wait({release})
    is_told = not release.cancelled() and release.exception() is None
    return is_told and release.result().released


def _note_no_lease(called: _Returned[Any] | _Raised, end: _Returned[Any] | _Raised) -> None:
    """Add to a call's exception why no retry was made."""
    if isinstance(called, _Raised) and isinstance(end, _Raised):
        with contextlib.suppress(Exception):  # foreign classes may refuse any change
            called.error.add_note(f"Forebay: no lease came for the retry: {end.error}")
    else:
        log.warning("retry_got_no_lease")
