"""Operations and replies of ``lua/requests/batch.lua`` as values; pure functions (spec 02, 03)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from contracts.identity import RequestDomain
from contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
    RequestReleaseOutcome,
)
from contracts.settings import LONGEST_SECONDS, RequestAdmissionConfig
from coordinator.keys import check_id, encode
from coordinator.operations import Args

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
        wait,
    )


def release_args(lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> Args:
    """Return the operation that gives ``lease`` back with ``outcome``."""
    hint = outcome.retry_after_seconds
    usable = hint is not None and 0 < hint < math.inf  # a whole number of any size too
    hint_us = round(min(hint or 0.0, LONGEST_HINT_SECONDS) * 1e6) if usable else 0
    return ("release", encode(lease.lease_id), outcome.kind.value, hint_us, lease.generation)


def register_args(alias: str, cap: int, config: RequestAdmissionConfig) -> Args:
    """Return the operation that registers an alias with its cap and the resource's tuning."""
    tuning = config.tuning
    hold = config.max_hold_seconds
    values: list[str] = [
        repr(tuning.multiplicative_decrease_factor),
        str(tuning.additive_increase_step),
        str(round(tuning.cooldown_seconds * 1e6)),
        str(round(tuning.startup_ramp_seconds * 1e6)),
        str(round(config.max_cooldown_seconds * 1e6)),
        str(tuning.successes_until_increase),
        "" if hold is None else str(round(hold * 1e6)),
    ]
    for limits in (config.initial_limits, config.max_limit_clamps):
        values += [str(limits.get(domain, "")) for domain in RequestDomain]
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
    """Return the denial that ``[.., reason, available_us, retry_after_us]`` describes."""
    reason, available_us, retry_after_us = terms[-3:]
    return RequestAdmissionDenied(
        item=item,
        reason=RequestDenialReason(reason),
        retry_after_seconds=retry_after_us / 1e6 if available_us else None,
        available_at=available_us / 1e6 if available_us else None,
    )


def denial_message(denied: RequestAdmissionDenied) -> str:
    """Return one sentence: what was refused, why, and what helps."""
    resource = denied.item.resource
    match denied.reason:
        case RequestDenialReason.HARD_POLICY_DENIAL:
            return (
                f"{resource} is not registered, so nothing may be sent to it; call"
                " register(provider_model, alias, max_parallel_requests) first."
            )
        case RequestDenialReason.QUEUE_TIMEOUT:
            waited = denied.item.queue_wait_timeout_seconds
            within = "its resource's default wait" if waited is None else f"{waited:g} s"
            return (
                f"no lease for {resource} within {within}; raise queue_wait_timeout_seconds, the"
                " cap, or the group's weight."
            )
        case RequestDenialReason.SHUTDOWN:
            return f"the controller was closed, so there is no lease for {resource}; connect anew."
        case _:
            return f"no lease for {resource}: {denied.reason}; use acquire() to wait for one."
