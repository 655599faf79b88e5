"""The operations of an attempt in ``lua/requests/batch.lua`` (spec 02, 03)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from forebay.contracts.outcomes import RequestOutcomeKind, RequestReleaseOutcome
from forebay.contracts.quotas import MAX_BUDGET
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.contracts.settings import LONGEST_SECONDS
from forebay.coordinator.keys import encode
from forebay.coordinator.shard.operation import (
    Args,
    EndOfLease,
    Operation,
    OperationWithoutValue,
    Reply,
)

_LOCAL: Final = frozenset({RequestOutcomeKind.LOCAL_CANCELLED, RequestOutcomeKind.LOCAL_TIMEOUT})
LONGEST_HINT_SECONDS: Final = 1e9
"""A longer hint is as good as this one: it is clamped to ``max_cooldown_seconds`` anyway."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The attempt stands in the queue of its shard, under a membership."""

    member_id: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The shard does not know the attempt: its waiter has gone with the server's memory of it."""


Answer = RequestAdmissionLease | RequestAdmissionDenied | Waiting | Unknown
"""The states of an attempt that a reply or a notice of its shard reports."""


def decode_answer(
    item: RequestAdmissionItem, terms: Sequence[Any], generation: str, member_id: str
) -> Answer:
    """Return what ``[status, ...]`` says of an attempt, in a result or a notice.

    Raises:
        ValueError: another status.
    """
    match terms[0]:
        case "granted":
            return decode_lease(item, terms, generation, member_id)
        case "denied":
            return decode_denial(item, terms)
        case "waiting":
            return Waiting(member_id)
        case "unknown":
            return Unknown()
        case word:
            raise ValueError(f"an attempt that is {word!r}")


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


def wait_argument(timeout_seconds: float | None) -> str:
    """Return a wait, from 0 on, in microseconds as the script wants it; "" waits for ever."""
    if timeout_seconds is None or timeout_seconds == math.inf:
        return ""
    return str(round(min(timeout_seconds, LONGEST_SECONDS) * 1e6))


def group_key(item: RequestAdmissionItem) -> str:
    """Return the name of an attempt's group; its resource's where it has none of its own."""
    return item.group.key if item.group.key is not None else str(item.resource)


@dataclass(frozen=True, slots=True)
class Acquire(Operation[Answer]):
    """Asks for a lease.

    Attributes:
        item: what is asked.
        wait: in microseconds, or "try", or "" for ever.
    """

    item: RequestAdmissionItem
    wait: str

    outlives_membership: ClassVar[bool] = False  # it is asked anew, for what is left of its wait

    @property
    def group_key(self) -> str:
        """The name of the attempt's group."""
        return group_key(self.item)

    def encode(self) -> Args:
        item = self.item
        return (
            "acquire",
            encode(item.attempt_id),
            item.resource.domain.value,
            encode(self.group_key),
            repr(item.group.weight),
            item.cost or 0,
            self.wait,
        )

    def decode(self, reply: Reply) -> Answer:
        membership = reply.membership
        return decode_answer(self.item, reply.terms, membership.generation, membership.member_id)

    def undo(self, reply: Reply) -> Sequence[Cancel]:
        return _taken_back(self.item, reply)


@dataclass(frozen=True, slots=True)
class State(Operation[Answer]):
    """Asks what became of an attempt: the truth, should a wake-up have been lost.

    Where the server is away for longer than a call may take, or refuses, the attempt fails, as a
    new one would (spec 06, *When Redis is away*: ``fail``): else it might wait for ever.
    """

    item: RequestAdmissionItem

    needs_memory: ClassVar[bool] = False
    outlives_membership: ClassVar[bool] = False
    is_recheck: ClassVar[bool] = True

    def encode(self) -> Args:
        return ("state", encode(self.item.attempt_id))

    def decode(self, reply: Reply) -> Answer:
        membership = reply.membership
        return decode_answer(self.item, reply.terms, membership.generation, membership.member_id)

    def undo(self, reply: Reply) -> Sequence[Cancel]:
        return _taken_back(self.item, reply)


def _taken_back(item: RequestAdmissionItem, reply: Reply) -> Sequence[Cancel]:
    has_something = reply.terms[0] in {"granted", "waiting"}
    return (Cancel(encode(item.attempt_id)),) if has_something else ()


@dataclass(frozen=True, slots=True)
class Cancel(OperationWithoutValue):
    """Takes an attempt back, whichever way it went: its waiter, or its lease."""

    attempt_id: str

    is_release: ClassVar[bool] = True
    needs_memory: ClassVar[bool] = False

    def encode(self) -> Args:
        return ("cancel", self.attempt_id)


@dataclass(frozen=True, slots=True)
class Release(EndOfLease):
    """Gives a lease back with its outcome, which moves the window."""

    lease: RequestAdmissionLease
    outcome: RequestReleaseOutcome

    def encode(self) -> Args:
        lease, outcome = self.lease, self.outcome
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
