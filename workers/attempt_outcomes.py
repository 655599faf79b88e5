"""Outcomes of the executor's attempts, and quota readings of their answers (design 03)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from forebay.contracts.outcomes import SUCCESS, RequestReleaseOutcome
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.requests import RequestAdmissionLease
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.classifying import classified
from forebay.workers.providers.answered import Answered, answer_of
from forebay.workers.providers.budget_headers import quota_readings
from forebay.workers.providers.classification import Classifier
from forebay.workers.providers.refusal_log import REFUSALS
from forebay.workers.providers.token_usage import token_usage

log = Logger("forebay.executor")


class AttemptOutcomes:
    """Returns outcomes of attempts from exceptions and answers of their calls.

    A classifier is the user's: what it raises is logged, and hides nothing of the call.

    Args:
        classifier: reads statuses, headers and exceptions.
        learn: called with the quota readings of an answer's headers.
        clock: Unix time in seconds, for dates in headers.
    """

    def __init__(
        self,
        classifier: Classifier,
        learn: Callable[[RequestAdmissionLease, Sequence[QuotaReading]], None],
        clock: Callable[[], float],
    ) -> None:
        self._classifier = classifier
        self._report = learn
        self._clock = clock

    def of_error(self, lease: RequestAdmissionLease, error: BaseException) -> RequestReleaseOutcome:
        """Classify an exception of the call."""

        def classify() -> RequestReleaseOutcome:
            now = self._clock()
            self._learn(lease, answer_of(error, now), now)
            return self._classifier.classify_exception(error, now=now)

        outcome = classified(classify, error=error)
        REFUSALS.saw(lease.item.resource, outcome)
        return outcome

    def of_answer(self, lease: RequestAdmissionLease, answer: object) -> RequestReleaseOutcome:
        """Classify the answer of the call; an answer without a status is a success."""

        def classify() -> RequestReleaseOutcome:
            now = self._clock()
            found = answer_of(answer, now)
            self._learn(lease, found, now)
            outcome = SUCCESS
            if found is not None:
                outcome = self._classifier.classify_response(
                    found.status, found.headers, found.error_code, now=now
                )
            usage = token_usage(getattr(answer, "usage", None))
            return outcome if usage is None else replace(outcome, usage=usage)

        return classified(classify)

    def _learn(self, lease: RequestAdmissionLease, found: Answered | None, now: float) -> None:
        readings = quota_readings(found.headers, now, found.profile) if found is not None else []
        if readings:
            self._report(lease, readings)

    def is_retryable(self, outcome: RequestReleaseOutcome) -> bool:
        """Return whether another attempt may succeed after this one."""
        try:
            return self._classifier.is_retryable(outcome)
        except Exception as fault:  # noqa: BLE001 - nor hide what the provider's call raised
            log.warning("classifier_failed", error_type=type(fault).__qualname__)
            return False
