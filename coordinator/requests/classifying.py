"""Outcomes of attempts, read from the exceptions that they raised (design 03, *Classification*)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from forebay.contracts.checks import check_type
from forebay.contracts.outcomes import (
    ClassifyException,
    RequestOutcomeKind,
    RequestReleaseOutcome,
)
from forebay.coordinator.logs import Logger

UNCLASSIFIED: Final = RequestReleaseOutcome(kind=RequestOutcomeKind.UNEXPECTED_EXCEPTION)
"""The outcome of an attempt whose classifier was interrupted."""

log = Logger("forebay.requests")


def classify_by_kind(error: Exception) -> RequestReleaseOutcome:
    """Classify an exception of a provider call without knowledge of any HTTP library.

    `forebay.connect` passes a classifier that does know them
    (``forebay.workers.providers.classification.DefaultClassifier``).
    """
    kind = RequestOutcomeKind.UNEXPECTED_EXCEPTION
    if isinstance(error, TimeoutError):
        kind = RequestOutcomeKind.PROVIDER_TIMEOUT
    elif isinstance(error, ConnectionError):
        kind = RequestOutcomeKind.PROVIDER_FAILURE
    return RequestReleaseOutcome(kind=kind, diagnostics=_type_of(error))


def outcome_of(error: BaseException, classify: ClassifyException) -> RequestReleaseOutcome:
    """Return the outcome for an exception that a block raised; raises no `Exception`.

    What is no `Exception` (cancellation, `GeneratorExit`, `KeyboardInterrupt`, `SystemExit`) ended
    the attempt from outside and is ``local_cancelled``. The rest is the classifier's to say.
    """
    if not isinstance(error, Exception):
        return RequestReleaseOutcome(
            kind=RequestOutcomeKind.LOCAL_CANCELLED, diagnostics=_type_of(error)
        )
    return classified(lambda: classify(error), error=error)


def classified(
    classify: Callable[[], RequestReleaseOutcome],
    *,
    error: BaseException | None = None,
    provider_status: int | None = None,
) -> RequestReleaseOutcome:
    """Return a classifier's outcome of an attempt; raises no `Exception`.

    A classifier is the user's: one that fails, or says something else, costs no lease and hides
    nothing. The attempt is then an ``unexpected_exception``.

    Args:
        classify: asks the classifier.
        error: what the attempt raised, if it did.
        provider_status: of the attempt's answer, where one came.
    """
    try:
        outcome = classify()
        check_type("the classifier's outcome", outcome, RequestReleaseOutcome)
    except Exception as fault:  # noqa: BLE001 - as said above
        log.warning("classifier_failed", error_type=type(fault).__qualname__)
        return RequestReleaseOutcome(
            kind=RequestOutcomeKind.UNEXPECTED_EXCEPTION,
            provider_status=provider_status,
            diagnostics={} if error is None else _type_of(error),
        )
    return outcome


def _type_of(error: BaseException) -> dict[str, Any]:
    return {"error_type": type(error).__qualname__}
