"""One warning when calls of a model begin to fail (design 05, *Failures*)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from forebay.contracts.runs import ModelTrouble
from forebay.coordinator.logs import Logger

DEGRADED_FAILURES: Final = 10
"""Failed tries of cells over one model after which ``provider_degraded`` is logged."""

log = Logger("forebay.runs")


class TroubleWatch:
    """Logs each model of a run whose calls fail often once, with counts by status and kind.

    Args:
        run_id: for the log.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._told: set[str] = set()

    def look(self, troubles: Iterable[ModelTrouble]) -> None:
        """Log ``provider_degraded`` for each model that has reached ``DEGRADED_FAILURES``, once."""
        for model, counts in counts_by_model(troubles).items():
            if model not in self._told and sum(counts.values()) >= DEGRADED_FAILURES:
                self._told.add(model)
                log.warning(
                    "provider_degraded",
                    run_id=self._run_id,
                    model=model,
                    failures=counts,
                    hint="cells are tried again, max_tries times each; those that fail then are"
                    " dropped, and above max_error_rate the run stops itself",
                )


def counts_by_model(troubles: Iterable[ModelTrouble]) -> dict[str, dict[str, int]]:
    """Return failed tries by model, then by status or kind; most frequent first."""
    counts: dict[str, dict[str, int]] = {}
    for trouble in sorted(troubles, key=lambda one: (-one.count, one.model, one.status)):
        counts.setdefault(trouble.model, {})[trouble.status] = trouble.count
    return counts
