"""State a member's leases and waiters to a shard that lost state (design 06, *Generations*)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from forebay.contracts.requests import RequestAdmissionLease
from forebay.coordinator.keys import encode
from forebay.coordinator.requests.operations import (
    Answer,
    Attempt,
    Cancel,
    Unknown,
    decode_answer,
    group_key,
    taken_back,
)
from forebay.coordinator.requests.rechecks import Rechecks
from forebay.coordinator.requests.releasing import Release
from forebay.coordinator.requests.upkeep import Upkeep
from forebay.coordinator.shard.operation import (
    Args,
    Listed,
    Outcome,
    Reply,
    Statement,
    Submitted,
    ignore_outcome,
)
from forebay.coordinator.shard.session import Session

STALE: Final = "stale_lease"
OnStale = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Recall(Statement[None]):
    """The operation that states a shard's windows, budgets and settings of the last `Sweep`."""

    memory: str

    def encode(self) -> Args:
        return ("recall", self.memory)

    def decode(self, reply: Reply) -> None:
        """Return nothing."""


@dataclass(frozen=True, slots=True)
class Hold(Statement[bool]):
    """The operation that states a lease of this member; the reply says whether it is held."""

    lease: RequestAdmissionLease

    def encode(self) -> Args:
        lease = self.lease
        return (
            "hold",
            encode(lease.lease_id),
            lease.item.resource.domain.value,
            encode(group_key(lease.item)),
            round(lease.acquired_at * 1e6),
            lease.limit_at_admission,
            lease.cuts_at_admission,
            lease.effective_max,
            lease.item.cost or 0,
        )

    def decode(self, reply: Reply) -> bool:
        return bool(reply.terms[0] != STALE)


@dataclass(frozen=True, slots=True)
class KeepWaiting(Statement[Answer]):
    """The operation that states a waiting attempt, and how long it has waited."""

    attempt: Attempt
    now: float

    def encode(self) -> Args:
        attempt, item = self.attempt, self.attempt.item
        left = "" if attempt.deadline is None else str(_microseconds(attempt.deadline - self.now))
        return (
            "wait",
            attempt.encoded_id,
            item.resource.domain.value,
            encode(group_key(item)),
            repr(item.group.weight),
            item.cost or 0,
            left,
            _microseconds(self.now - attempt.asked_at),
        )

    def decode(self, reply: Reply) -> Answer:
        if reply.terms[0] == STALE:
            return Unknown()
        membership, item = reply.membership, self.attempt.item
        return decode_answer(item, reply.terms, membership.generation, membership.member_id)

    def undo(self, reply: Reply) -> Sequence[Cancel]:
        return taken_back(self.attempt.item, reply)


@dataclass(frozen=True, slots=True)
class Inventory(Statement[Listed]):
    """Asks for the leases and waiters that the shard knows of this member; ends its statement."""

    after: str = ""

    def encode(self) -> Args:
        return ("inventory", self.after)

    def decode(self, reply: Reply) -> Listed:
        if reply.terms[0] == STALE:
            return Listed(ids=(), rest="")
        _word, ids, rest = reply.terms
        return Listed(ids=ids, rest=rest)


class Restating:
    """States the leases and waiters of one process to a shard that lost state.

    Grants that only the shard knows are taken or released.

    Args:
        session: of the shard.
        attempts: those that are open, by encoded id.
        rechecks: of the attempts that wait.
        is_held: whether this process holds a lease of an encoded id.
    """

    def __init__(
        self,
        session: Session,
        attempts: Mapping[str, Attempt],
        rechecks: Rechecks,
        is_held: Callable[[str], bool],
    ) -> None:
        self._session = session
        self._attempts = attempts
        self._rechecks = rechecks
        self._is_held = is_held
        self._loop = asyncio.get_running_loop()

    def state_all(
        self, held: Mapping[str, RequestAdmissionLease], upkeep: Upkeep, on_stale: OnStale
    ) -> list[Submitted]:
        """Return the operations that state windows, registrations, leases and waiters.

        Args:
            held: the leases of this process, by encoded id.
            upkeep: of the shard.
            on_stale: called with the encoded id of a lease that ended meanwhile, and why.
        """
        now = self._loop.time()
        leases = dict(held)
        for release in self._session.unanswered(Release):  # sent after the statement
            if self._is_own(release.lease):
                leases[encode(release.lease.lease_id)] = release.lease
        waiting = []
        for attempt in self._attempts.values():
            if isinstance(attempt.end, RequestAdmissionLease):
                leases.setdefault(attempt.encoded_id, attempt.end)  # not yet returned
            elif attempt.is_waiting and attempt.end is None:
                waiting.append(attempt)
        return [
            *self.recall(upkeep),
            *upkeep.register_anew(),
            *((Hold(lease), partial(self._held_still, i, on_stale)) for i, lease in leases.items()),
            *((KeepWaiting(attempt, now), attempt.deliver) for attempt in waiting),
            (Inventory(), partial(self._take_listed, leases.keys())),
        ]

    def _is_own(self, lease: RequestAdmissionLease) -> bool:
        membership = self._session.membership
        return membership is not None and membership.member_id == lease.member_id

    def recall(self, upkeep: Upkeep) -> list[Submitted]:
        """Return the operation that states windows, budgets and settings, if any are remembered."""
        memory = upkeep.memory
        return [] if memory is None else [(Recall(memory), ignore_outcome)]

    def _held_still(self, encoded_id: str, on_stale: OnStale, outcome: Outcome[bool]) -> bool:
        if outcome is False:
            attempt = self._attempts.get(encoded_id)
            if attempt is not None:
                attempt.lost_because = "member_lost"
            on_stale(encoded_id, "member_lost")
        return True

    def _take_listed(self, stated: Collection[str], outcome: Outcome[Listed]) -> bool:
        """Recheck attempts whose grant was not noticed; release leases without a caller."""
        if not isinstance(outcome, Listed):
            return True
        for encoded_id in outcome.ids:
            attempt = self._attempts.get(encoded_id)
            if attempt is not None:
                self._rechecks.recheck(attempt)
            elif encoded_id not in stated and not self._is_held(encoded_id):
                self._session.submit(Cancel(encoded_id))
        if outcome.rest:
            self._session.submit(Inventory(outcome.rest), partial(self._take_listed, stated))
        return True


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
