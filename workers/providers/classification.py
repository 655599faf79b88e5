"""Outcomes of attempts from responses and exceptions (design 03, *Executor and transport*).

Pure rules: no clock, no I/O and no HTTP library. Exceptions of ``httpx``, ``httpx2`` and of the
SDKs built on them are known by name, so that a program needs none of them to classify the others.
What comes out carries statuses, short codes and class names, never a body, a prompt or a key.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from forebay.contracts.checks import check_methods
from forebay.contracts.errors import CoordinatorFull, CoordinatorUnavailable, MembershipLost
from forebay.contracts.outcomes import (
    RateLimitScope,
    RequestOutcomeKind,
    RequestReleaseOutcome,
    TokenUsage,
)
from forebay.contracts.requests import RequestAdmissionError, RequestDenialReason
from forebay.workers.providers.answer_bodies import ANSWER_TOO_LONG
from forebay.workers.providers.answered import answer_of
from forebay.workers.providers.budget_headers import exhausted_budget
from forebay.workers.providers.exception_kinds import kind_by_class
from forebay.workers.providers.facts import Period
from forebay.workers.providers.faults import (
    INVALID,
    NO_FUNDS,
    NO_QUOTA,
    QUOTA_USED_UP,
    REQUEST_TOO_LARGE,
)
from forebay.workers.providers.headers import (
    BUDGET_HEADER,
    LONGEST_HINT_SECONDS,
    lowered_headers,
    stated_wait,
)
from forebay.workers.providers.registry import GENERIC

_BUDGET_CODE = re.compile(r"quota|daily|monthly|per_day|per_month", re.IGNORECASE)
"""Parts of an error code that name a budget of requests or tokens, such as a daily one."""
_AT_ONCE = f"_{Period.AT_ONCE}"
_FIRST_ERROR_STATUS = 400
_TOO_LARGE_STATUS = 413
_OF_REQUEST = frozenset({ANSWER_TOO_LONG, REQUEST_TOO_LARGE})
_OF_ACCOUNT = frozenset({NO_FUNDS, NO_QUOTA})
_PAYMENT_STATUS = 402
NOT_SENT = RequestReleaseOutcome(
    kind=RequestOutcomeKind.LOCAL_CANCELLED,
    usage=TokenUsage(),
    diagnostics={"sent": False, "retryable": True},
)
"""No byte went out: a usage of zero gives the whole cost back to the quota."""


class Classifier(Protocol):
    """Maps responses and exceptions to outcomes; replaceable for a provider with other rules."""

    def classify_response(
        self,
        status: int,
        headers: Mapping[str, str],
        body_error_code: str | None = None,
        *,
        now: float,
    ) -> RequestReleaseOutcome:
        """Classify an answer; ``now`` is the Unix time in seconds, for dates in headers."""
        ...

    def classify_exception(self, error: BaseException, *, now: float) -> RequestReleaseOutcome:
        """Classify an exception of the call; bytes of the request may have gone out."""
        ...

    def is_retryable(self, outcome: RequestReleaseOutcome) -> bool:
        """Return whether another attempt may succeed."""
        ...


def check_classifier(value: object) -> None:
    """Raise unless a value is a `Classifier`.

    Raises:
        ConfigurationError: such as a class.
    """
    names = ("classify_response", "classify_exception", "is_retryable")
    check_methods("classifier", value, names, "pass one, such as forebay.DefaultClassifier()")


class DefaultClassifier:
    """The built-in `Classifier` (design 03, *Classification*); subclasses may change it.

    What `classify_response` says of an answer holds for exceptions that carry one, too.

    Example:
        >>> classifier = forebay.DefaultClassifier()
        >>> refused = classifier.classify_response(429, {"retry-after": "3"}, now=0.0)
        >>> print(refused.kind, refused.retry_after_seconds, classifier.is_retryable(refused))
        rate_limited 3.0 True
        >>> print(classifier.classify_exception(TimeoutError(), now=0.0).kind)
        provider_timeout
    """

    def classify_response(
        self,
        status: int,
        headers: Mapping[str, str],
        body_error_code: str | None = None,
        *,
        now: float,
    ) -> RequestReleaseOutcome:
        """Classify a provider's answer.

        Args:
            status: HTTP status.
            headers: response headers; names in any case.
            body_error_code: the code of the error in the body; in an answer with a good status it
                tells of a failure within the stream.
            now: Unix time in seconds, for a ``retry-after`` that is a date.

        Returns:
            2xx without a code ``success``; 429, 503, 529 and codes of overload ``rate_limited``,
            with the provider's hint, whose scope is ``quota`` where headers, body or code name a
            budget; everything else, and what concerns the request or the account alone whatever
            its status, ``provider_failure``. ``diagnostics["about"]`` is then ``request`` or
            ``account``.
        """
        is_good = 200 <= status < 300  # noqa: PLR2004
        if is_good and body_error_code is None:
            return RequestReleaseOutcome(kind=RequestOutcomeKind.SUCCESS, provider_status=status)
        lowered = lowered_headers(headers)
        diagnostics: dict[str, Any] = {}
        if body_error_code is not None:
            diagnostics["error_code"] = body_error_code
        hint = stated_wait(lowered, now)
        about = _concern_of(status, body_error_code, tells_wait=hint is not None)
        if about is not None:
            diagnostics["about"] = about
        # "false" is OpenAI's word for "the same request will fail again", which its own SDK
        # respects.
        if about is not None or lowered.get("x-should-retry") == "false":
            diagnostics["retryable"] = False
        elif is_good:
            # The request was accepted, so it is not the request that is wrong.
            diagnostics["retryable"] = True
        hint = None if about is not None else hint
        if hint is not None and hint > LONGEST_HINT_SECONDS:
            diagnostics["hint_clamped_from_seconds"] = hint
            hint = LONGEST_HINT_SECONDS
        if about is not None or not _is_overload(status, body_error_code):
            return RequestReleaseOutcome(
                kind=RequestOutcomeKind.PROVIDER_FAILURE,
                retry_after_seconds=hint,
                provider_status=status,
                diagnostics=diagnostics,
            )
        budget = _budget_of(lowered, now)
        if budget is not None:
            diagnostics["budget"] = budget
        names_budget = budget is not None or bool(_BUDGET_CODE.search(body_error_code or ""))
        is_load = not names_budget or (budget or "").endswith(_AT_ONCE)
        return RequestReleaseOutcome(
            kind=RequestOutcomeKind.RATE_LIMITED,
            retry_after_seconds=hint,
            scope=None if is_load else RateLimitScope.QUOTA,
            provider_status=status,
            diagnostics=diagnostics,
        )

    def classify_exception(self, error: BaseException, *, now: float) -> RequestReleaseOutcome:
        """Classify an exception of a call.

        Args:
            error: any exception; one that carries an answer (``status``, or ``response`` as in
                httpx and the SDKs on it) is classified by that answer.
            now: Unix time in seconds.

        Returns:
            Connection errors ``provider_failure``; a timeout ``provider_timeout``; no connection in
            time and a queue's timeout ``local_timeout``; cancellation, and what kept the attempt
            from being sent at all, ``local_cancelled``; the rest ``unexpected_exception``. An
            outcome of which it is sure that no byte went out has a usage of zero, which gives the
            whole cost back to the quotas.
        """
        diagnostics: dict[str, Any] = {"error_type": type(error).__qualname__}
        if isinstance(error, asyncio.CancelledError):
            return RequestReleaseOutcome(
                kind=RequestOutcomeKind.LOCAL_CANCELLED,
                diagnostics=diagnostics | {"retryable": False},
            )
        answer = answer_of(error, now)
        if answer is not None:
            outcome = self.classify_response(
                answer.status, answer.headers, answer.error_code, now=now
            )
            return _raised(outcome, diagnostics)
        if isinstance(error, MembershipLost | CoordinatorUnavailable | CoordinatorFull):
            return replace(NOT_SENT, diagnostics={**diagnostics, **NOT_SENT.diagnostics})
        if isinstance(error, RequestAdmissionError):
            reason = error.denied.reason
            timed_out = reason is RequestDenialReason.QUEUE_TIMEOUT
            return RequestReleaseOutcome(
                kind=RequestOutcomeKind.LOCAL_TIMEOUT
                if timed_out
                else RequestOutcomeKind.LOCAL_CANCELLED,
                usage=TokenUsage(),
                diagnostics=diagnostics | {"reason": str(reason), "retryable": timed_out},
            )
        kind = kind_by_class(error)
        # A local timeout here is one before the first byte: no connection was to be had in time.
        unsent = kind is RequestOutcomeKind.LOCAL_TIMEOUT
        return RequestReleaseOutcome(
            kind=kind, usage=TokenUsage() if unsent else None, diagnostics=diagnostics
        )

    def is_retryable(self, outcome: RequestReleaseOutcome) -> bool:
        """Return whether another attempt may succeed.

        Overload, timeouts, connection errors and 5xx may; other statuses, cancellations and
        exceptions nobody foresaw may not. ``diagnostics["retryable"]`` overrides the rule by kind.
        """
        stated = outcome.diagnostics.get("retryable")
        if isinstance(stated, bool):
            return stated
        if outcome.kind is RequestOutcomeKind.PROVIDER_FAILURE:
            return outcome.provider_status is None or outcome.provider_status >= 500  # noqa: PLR2004
        return outcome.kind in {
            RequestOutcomeKind.RATE_LIMITED,
            RequestOutcomeKind.PROVIDER_TIMEOUT,
            RequestOutcomeKind.LOCAL_TIMEOUT,
        }


def _concern_of(status: int, code: str | None, *, tells_wait: bool) -> str | None:
    """Return the subject of a refusal that no wait can cure, None for other answers."""
    lowered = (code or "").lower()
    refusals = GENERIC.refusals
    # Who asks for money and says to wait means what is still being settled.
    must_pay = status == _PAYMENT_STATUS and not tells_wait
    if must_pay or lowered in refusals.account or lowered in _OF_ACCOUNT:
        return "account"
    is_good = status < _FIRST_ERROR_STATUS
    if (
        status == _TOO_LARGE_STATUS
        or lowered in _OF_REQUEST
        or lowered in refusals.request
        or (is_good and lowered in INVALID)
    ):
        return "request"
    return None


def _is_overload(status: int, code: str | None) -> bool:
    refusals, lowered = GENERIC.refusals, (code or "").lower()
    is_told = lowered in refusals.overload or lowered == QUOTA_USED_UP
    return is_told or status in refusals.overload_statuses


def _budget_of(headers: Mapping[str, str], now: float) -> str | None:
    """Return the name of the budget in a refusal, None for none."""
    named = headers.get(BUDGET_HEADER)
    exhausted = None if named is not None else exhausted_budget(headers, now)
    return named if exhausted is None else str(exhausted.budget)


def _raised(outcome: RequestReleaseOutcome, diagnostics: dict[str, Any]) -> RequestReleaseOutcome:
    """Return the outcome of an exception from the outcome of the answer that it carries."""
    if outcome.kind is RequestOutcomeKind.SUCCESS:
        # A 2xx that raised is an answer nobody could read; the next one may be readable.
        return replace(
            outcome,
            kind=RequestOutcomeKind.PROVIDER_FAILURE,
            diagnostics={**diagnostics, **outcome.diagnostics, "retryable": True},
        )
    return replace(outcome, diagnostics={**diagnostics, **outcome.diagnostics})
