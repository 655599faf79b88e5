"""Operations and replies of ``lua/requests/batch.lua`` as values; pure functions (spec 02, 03)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from forebay.contracts.identity import RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind, RequestReleaseOutcome
from forebay.contracts.quotas import MAX_BUDGET, QuotaBudget, QuotaReading
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.contracts.settings import LONGEST_SECONDS, RequestAdmissionConfig
from forebay.coordinator.keys import check_id, encode
from forebay.coordinator.shard.operation import Args

_LOCAL: Final = frozenset({RequestOutcomeKind.LOCAL_CANCELLED, RequestOutcomeKind.LOCAL_TIMEOUT})
LONGEST_HINT_SECONDS: Final = 1e9
"""A longer hint is as good as this one: it is clamped to ``max_cooldown_seconds`` anyway."""


def wait_argument(timeout_seconds: float | None) -> str:
    """Return a wait, from 0 on, in microseconds as the script wants it; "" waits for ever."""
    if timeout_seconds is None or timeout_seconds == math.inf:
        return ""
    return str(round(min(timeout_seconds, LONGEST_SECONDS) * 1e6))


def acquire_args(item: RequestAdmissionItem, wait: str) -> Args:
    """Return the operation that asks for a lease for ``item``; ``wait`` may be "try"."""
    resource = item.resource
    group = item.group.key if item.group.key is not None else str(resource)
    return (
        "acquire",
        encode(item.attempt_id),
        resource.domain.value,
        encode(group),
        repr(item.group.weight),
        item.cost or 0,
        wait,
    )


def release_args(lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> Args:
    """Return the operation that gives ``lease`` back with ``outcome``."""
    hint = outcome.retry_after_seconds
    usable = hint is not None and 0 < hint < math.inf  # a whole number of any size too
    hint_us = round(min(hint or 0.0, LONGEST_HINT_SECONDS) * 1e6) if usable else 0
    used = _used(outcome)
    scope = "" if outcome.scope is None else outcome.scope.value
    lease_id = encode(lease.lease_id)
    return ("release", lease_id, outcome.kind.value, hint_us, lease.generation, used, scope)


def _used(outcome: RequestReleaseOutcome) -> str:
    """Return the real tokens; "unsent" where a local end says that no byte went out."""
    if outcome.usage is None:
        return ""
    tokens = outcome.usage.input_tokens + outcome.usage.output_tokens
    unsent = tokens == 0 and outcome.kind in _LOCAL and outcome.provider_status is None
    return "unsent" if unsent else str(min(tokens, MAX_BUDGET))


def learn_args(reading: QuotaReading, at_us: int) -> Args:
    """Return the operation that tells a shard what an answer's headers said of a budget."""
    limit, remaining = ("" if n is None else n for n in (reading.limit, reading.remaining))
    return ("learn", reading.budget.value, limit, remaining, at_us)


def register_args(alias: str, cap: int, config: RequestAdmissionConfig) -> Args:
    """Return the operation that registers an alias with its cap and the resource's tuning."""
    tuning = config.tuning
    hold = config.max_hold_seconds
    values: list[str] = [
        tuning.rule,
        str(tuning.successes_until_try),
        str(tuning.round_successes),
        repr(tuning.multiplicative_decrease_factor),
        str(tuning.additive_increase_step),
        str(tuning.successes_until_increase),
        str(round(tuning.cooldown_seconds * 1e6)),
        str(round(tuning.startup_ramp_seconds * 1e6)),
        str(round(config.max_cooldown_seconds * 1e6)),
        "" if hold is None else str(round(hold * 1e6)),
    ]
    for limits in (config.initial_limits, config.max_limit_clamps):
        values += [str(limits.get(domain, "")) for domain in RequestDomain]
    values.append(config.fair_by)
    if config.quotas is not None:
        limits_of_budgets = [getattr(config.quotas, budget) for budget in QuotaBudget]
        bursts = [config.quotas.bursts.get(budget) for budget in QuotaBudget]
        values += ["" if n is None else str(n) for n in (*limits_of_budgets, *bursts)]
    return ("register", check_id("alias", alias), cap, ",".join(values))


def decode_lease(
    item: RequestAdmissionItem, terms: Sequence[Any], generation: str, member_id: str
) -> RequestAdmissionLease:
    """Return the lease that a grant ``[.., acquired_us, limit, cuts, effective_max]`` describes."""
    acquired_us, limit, cuts, effective_max = terms[-4:]
    return RequestAdmissionLease(
        lease_id=item.attempt_id,
        item=item,
        acquired_at=acquired_us / 1e6,
        limit_at_admission=limit,
        cuts_at_admission=cuts,
        effective_max=effective_max,
        generation=generation,
        member_id=member_id,
    )


def decode_denial(item: RequestAdmissionItem, terms: Sequence[Any]) -> RequestAdmissionDenied:
    """Return the denial that ``["denied", reason, available_us, retry_after_us]`` describes.

    A ``never_fits`` or, of a timeout, a ``lacks_quota`` may follow, with the budget.
    """
    _denied, reason, available_us, retry_after_us, *why = terms
    return RequestAdmissionDenied(
        item=item,
        reason=RequestDenialReason(reason),
        retry_after_seconds=retry_after_us / 1e6 if available_us else None,
        available_at=available_us / 1e6 if available_us else None,
        diagnostics={"code": why[0], "budget": why[1]} if why else {},
    )


def _timeout_message(denied: RequestAdmissionDenied) -> str:
    waited = denied.item.queue_wait_timeout_seconds
    within = "its resource's default wait" if waited is None else f"{waited:g} s"
    budget = denied.diagnostics.get("budget")
    if budget is None:
        why, remedy = "", "the cap, or the group's weight"
    else:
        draw = f"{denied.item.cost} tokens" if "tokens" in budget else "one more request"
        why = f": its quota {budget} has no room for {draw} yet"
        remedy = "or the quota, if the account has more"
    return (
        f"no lease for {denied.item.resource} within {within}{why}; raise"
        f" queue_wait_timeout_seconds, {remedy}."
    )


def denial_message(denied: RequestAdmissionDenied) -> str:
    """Return one sentence: what was refused, why, and what helps."""
    resource = denied.item.resource
    match denied.reason:
        case RequestDenialReason.HARD_POLICY_DENIAL if denied.diagnostics:
            return (
                f"a cost of {denied.item.cost} tokens never fits the burst of"
                f" {denied.diagnostics['budget']} of {resource}; split the request, lower its"
                " estimate, or register a larger budget."
            )
        case RequestDenialReason.HARD_POLICY_DENIAL:
            return (
                f"{resource} is not registered, so nothing may be sent to it; call"
                " register(provider_model, alias, max_parallel_requests) first, or give the"
                " transport max_parallel_requests=, which registers what it meets."
            )
        case RequestDenialReason.QUEUE_TIMEOUT:
            return _timeout_message(denied)
        case RequestDenialReason.SHUTDOWN:
            return f"the controller was closed, so there is no lease for {resource}; connect anew."
        case _:
            return f"no lease for {resource}: {denied.reason}; use acquire() to wait for one."
