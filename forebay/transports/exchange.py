"""One HTTP attempt under its lease, from sending to the end of its body.

Rules: design 03, *Transport*.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from forebay.contracts.outcomes import RequestOutcomeKind, RequestReleaseOutcome
from forebay.contracts.requests import RequestAdmissionItem
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.classifying import classified, outcome_of
from forebay.transports.arguments import Controller
from forebay.transports.lanes import Exchange, Lanes
from forebay.transports.rules import Rules
from forebay.transports.waits import OPEN_BODIES
from forebay.workers.providers.answer_bodies import AnswerReader
from forebay.workers.providers.budget_headers import quota_readings
from forebay.workers.providers.classification import NOT_SENT
from forebay.workers.providers.faults import NO_FAULT
from forebay.workers.providers.headers import error_code_of, lowered_headers, with_stated_wait
from forebay.workers.providers.refusal_log import REFUSALS
from forebay.workers.providers.registry import GENERIC, PreparedProfile

log = Logger("forebay.transports")

_FIRST_ERROR_STATUS: Final = 400
_NO_CONTENT: Final = 204
_SENT_AGAIN: Final = frozenset({408, 409, 429, *range(500, 600)})
"""Statuses after which SDKs retry a request, some without reading the body."""
_UNKNOWN: Final = RequestReleaseOutcome(kind=RequestOutcomeKind.UNEXPECTED_EXCEPTION)


class LeasedExchange(Exchange):
    """One exchange under a lease, whose answer's bytes are watched as they pass.

    Whatever happens to it, its lease is released exactly once. None of its methods blocks, none
    but `before_sending` raises, and all may be called from any thread.

    Args:
        controller: grants the lease and takes it back.
        item: what is asked.
        rules: how it is treated.
        profile: what is known of the provider that is asked.

    Attributes:
        attempt: acquires and releases.
        is_over: whether the lease is released, or about to be.
        paused_since: when the reader last took something without asking for more; infinity while it
            waits for more.
    """

    __slots__ = (
        "_controller",
        "_headers",
        "_is_sent",
        "_lock",
        "_profile",
        "_reader",
        "_rules",
        "_status",
        "attempt",
        "is_over",
        "paused_since",
    )

    def __init__(
        self,
        controller: Controller,
        item: RequestAdmissionItem,
        rules: Rules,
        profile: PreparedProfile = GENERIC,
    ) -> None:
        super().__init__()
        self.attempt = controller.attempt(item)
        self.is_over = False
        self.paused_since = math.inf
        self._controller = controller
        self._rules = rules
        self._profile = profile
        self._status: int | None = None
        self._headers: Mapping[str, str] = {}
        self._reader: AnswerReader | None = None
        self._is_sent = False
        self._lock = threading.RLock()  # an interrupt of the thread that reads may close as well

    def before_sending(self, lanes: Lanes) -> Any:
        """Check that the lease is held, and return the transport for the request.

        From now on bytes may have gone out.

        Raises:
            MembershipLost: it may not be; nothing may be sent.
        """
        self._controller.assert_held(self.attempt.lease)
        lane = super().before_sending(lanes)
        self._is_sent = True
        return lane

    def answered(self, response: Any) -> None:
        """Take the status and headers of an answer, whose body is still to come."""
        self._headers = response.headers
        self._status = status = response.status_code
        headers = dict(response.headers.items())  # once: each look-up there goes through all
        try:
            readings = quota_readings(headers, time.time(), self._profile)
            if readings:
                self._controller.learn(self.attempt.lease, readings)
        except Exception as error:  # noqa: BLE001 - a hint less is no reason to lose an answer
            log.warning("quota_headers_ignored", error_type=type(error).__qualname__)
        kind = headers.get("content-type", "")
        is_good = status < _FIRST_ERROR_STATUS
        if response.is_closed:  # made in memory, and decoded there
            self._reader = AnswerReader(kind, "", self._profile, is_refusal=not is_good)
            self._reader.feed(response.content)
            self.ended()
            return
        encoding = headers.get("content-encoding", "")
        self._reader = AnswerReader(kind, encoding, self._profile, is_refusal=not is_good)
        if (
            status == _NO_CONTENT
            or headers.get("content-length") == "0"
            or (is_good and self._rules.releases_at_headers(self.attempt.item.resource))
        ):
            self.ended()

    @property
    def needs_body(self) -> bool:
        """Whether the body must be read to know if the SDK may retry (ADR 0029)."""
        return not self.is_over and self._status in _SENT_AGAIN

    def advise(self, response: Any) -> None:
        """Tell the SDK not to retry a refusal that no waiting cures."""
        outcome = self.attempt.outcome if self.is_over else None
        if outcome is not None and outcome.diagnostics.get("about") is not None:
            response.headers["x-should-retry"] = "false"

    def opened(self) -> None:
        """Note that the body, which holds the lease, is given to its reader."""
        if not self.is_over:
            self.paused_since = time.monotonic()
            OPEN_BODIES.opened(self)

    def asked(self) -> None:
        """Note that the reader waits for the next bytes of the body."""
        self.paused_since = math.inf

    def saw(self, chunk: bytes) -> None:
        """Read the next bytes of the body before its reader gets them."""
        self.paused_since = time.monotonic()
        with self._lock:
            if not self.is_over and self._reader is not None:
                self._reader.feed(chunk)

    def ended(self) -> None:
        """Note that the body was read to its end."""
        self._finish(self._outcome_of_answer)

    def closed(self) -> None:
        """Note that the body was closed or dropped, possibly before its end."""
        super().closed()
        self._finish(self._outcome_of_closing)

    def failed(self, error: BaseException) -> None:
        """Note the exception of the request, before or while it was sent or read."""
        self._finish(partial(self._outcome_of_failure, error))

    def soon(self, callback: Callable[[], None]) -> None:
        """Run something on the event loop of the lease's controller, as a later turn of it."""
        self._controller.caller.soon(callback)

    def _finish(self, outcome_of: Callable[[], RequestReleaseOutcome]) -> None:
        """Release the lease, unless another thread does or did."""
        with self._lock:
            was_over, self.is_over = self.is_over, True
        if was_over:
            return
        OPEN_BODIES.closed(self)
        outcome = _UNKNOWN
        try:
            outcome = outcome_of()
        finally:
            self.attempt.outcome = outcome
            self.attempt.__exit__(None, None, None)

    @property
    def _is_told(self) -> bool:
        """Whether the outcome is known, although the body's end was not read."""
        if self._status is None or self._reader is None:
            return False
        return (
            self._status >= _FIRST_ERROR_STATUS
            or self._reader.has_ended
            or self._reader.error_code is not None
        )

    def _classify(self, error: Exception) -> RequestReleaseOutcome:
        return self._rules.classifier.classify_exception(error, now=time.time())

    def _outcome_of_answer(self) -> RequestReleaseOutcome:
        def classify() -> RequestReleaseOutcome:
            status, headers, now = self._status or 0, self._headers, time.time()
            fault = NO_FAULT if self._reader is None else self._reader.fault
            code = fault.code
            if status >= _FIRST_ERROR_STATUS or fault != NO_FAULT:
                headers = lowered_headers(headers)
                code = error_code_of(status, headers, fault, self._profile)
                headers = with_stated_wait(headers, fault, self._profile, now)
            return self._rules.classifier.classify_response(status, headers, code, now=now)

        outcome = classified(classify, provider_status=self._status)
        if outcome.kind is not RequestOutcomeKind.SUCCESS:
            REFUSALS.saw(self.attempt.item.resource, outcome)
        return self._with_usage(outcome)

    def _outcome_of_closing(self) -> RequestReleaseOutcome:
        if self._is_told:
            return self._outcome_of_answer()
        outcome = RequestReleaseOutcome(
            kind=RequestOutcomeKind.LOCAL_CANCELLED, provider_status=self._status
        )
        return self._with_usage(outcome)

    def _outcome_of_failure(self, error: BaseException) -> RequestReleaseOutcome:
        if not self._is_sent:
            return NOT_SENT
        if self._is_told:
            return self._outcome_of_answer()
        return self._with_usage(outcome_of(error, self._classify))

    def _with_usage(self, outcome: RequestReleaseOutcome) -> RequestReleaseOutcome:
        usage = None if self._reader is None else self._reader.usage
        return outcome if usage is None else replace(outcome, usage=usage)
