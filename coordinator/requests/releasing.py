"""The operation that releases a request lease (design 02, *Requests*; design 03)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from forebay.contracts.outcomes import RequestOutcomeKind, RequestReleaseOutcome
from forebay.contracts.quotas import MAX_BUDGET
from forebay.contracts.requests import RequestAdmissionLease
from forebay.coordinator.keys import encode
from forebay.coordinator.shard.operation import Args, EndOfLease

_LOCAL: Final = frozenset({RequestOutcomeKind.LOCAL_CANCELLED, RequestOutcomeKind.LOCAL_TIMEOUT})
_BUDGET: Final = re.compile(r"[a-z_]{1,40}")
LONGEST_HINT_SECONDS: Final = 1e9
"""A longer hint is as good as this one: it is clamped to ``max_cooldown_seconds`` anyway."""


@dataclass(frozen=True, slots=True)
class Release(EndOfLease):
    """The operation that releases a lease with its outcome, which moves the window."""

    lease: RequestAdmissionLease
    outcome: RequestReleaseOutcome

    def encode(self) -> Args:
        lease, outcome = self.lease, self.outcome
        hint = outcome.retry_after_seconds
        usable = hint is not None and 0 < hint < math.inf  # a whole number of any size too
        hint_us = round(min(hint or 0.0, LONGEST_HINT_SECONDS) * 1e6) if usable else 0
        used = _used(outcome, lease.item.input_estimate or 0)
        scope = "" if outcome.scope is None else outcome.scope.value
        budget = outcome.diagnostics.get("budget")
        if scope and isinstance(budget, str) and _BUDGET.fullmatch(budget):
            scope = f"{scope}:{budget}"
        lease_id = encode(lease.lease_id)
        return ("release", lease_id, outcome.kind.value, hint_us, lease.generation, used, scope)


def _used(outcome: RequestReleaseOutcome, input_estimate: int) -> str:
    """Return the real tokens; "unsent" where a local end says that no byte went out.

    Where the input was estimated, the input's and the estimate follow: the shard learns from them.
    """
    if outcome.usage is None:
        return ""
    tokens = outcome.usage.input_tokens + outcome.usage.output_tokens
    unsent = tokens == 0 and outcome.kind in _LOCAL and outcome.provider_status is None
    if unsent:
        return "unsent"
    used = str(min(tokens, MAX_BUDGET))
    if not input_estimate or outcome.kind is not RequestOutcomeKind.SUCCESS:
        return used
    return f"{used}/{min(outcome.usage.input_tokens, MAX_BUDGET)}/{input_estimate}"
