"""State a member's leases and tasks to a pool that lost state (design 06, *Generations*)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from forebay.contracts.errors import ForebayError
from forebay.contracts.outcomes import TaskDeferred
from forebay.contracts.tasks import SchedulerResourceRequest, TaskAdmissionLease
from forebay.coordinator.keys import encode
from forebay.coordinator.shard.operation import (
    Args,
    Listed,
    Operation,
    Outcome,
    Reply,
    Statement,
    Submitted,
    ignore_outcome,
)
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard
from forebay.coordinator.tasks.names import milliseconds, signature
from forebay.coordinator.tasks.operations import End, named

STALE: Final = "stale_lease"


@dataclass(frozen=True, slots=True)
class Recall(Statement[None]):
    """The operation that states a pool's settings and claims of the last `Sweep`."""

    memory: str

    def encode(self) -> Args:
        return named("recall", self.memory)

    def decode(self, reply: Reply) -> None:
        """Return nothing."""


@dataclass(frozen=True, slots=True)
class Serve(Statement[None]):
    """The operation that states the functions of this process's workers."""

    functions: tuple[str, ...]

    def encode(self) -> Args:
        return named("serve", *self.functions)

    def decode(self, reply: Reply) -> None:
        """Return nothing."""


@dataclass(frozen=True, slots=True)
class Held:
    """A pool's answer to the leases that a member states.

    Attributes:
        stale: ids of those that it holds no more.
        wanted: ids of those of which the pool has lost the payload.
    """

    stale: Sequence[str]
    wanted: Sequence[str]


@dataclass(frozen=True, slots=True)
class Hold(Operation[Held]):
    """The operation that states this member's leases; made when its call is sent."""

    leases: tuple[TaskAdmissionLease, ...]
    in_progress_seconds: float

    def encode(self) -> Args:
        terms = [part for lease in self.leases for part in _terms(lease)]
        return named("hold", milliseconds(self.in_progress_seconds), *terms)

    def decode(self, reply: Reply) -> Held:
        _word, stale, wanted = reply.terms
        return Held(stale=stale, wanted=wanted)


def _terms(lease: TaskAdmissionLease) -> tuple[str | int, ...]:
    item = lease.item
    return (
        lease.lease_id,
        encode(item.task_id),
        item.group,
        signature(SchedulerResourceRequest(amounts=lease.resources)),
        round(lease.acquired_at * 1e6),
        item.available_ms,
        item.job_try,
        "" if item.cell is None else "cell",
        int(item.payload is not None),
    )


@dataclass(frozen=True, slots=True)
class Payload(Statement[None]):
    """The operation that sends a task's payload to a pool that has lost it."""

    lease_id: str
    payload: bytes

    def encode(self) -> Args:
        return named("payload", self.lease_id, self.payload)

    def decode(self, reply: Reply) -> None:
        """Return nothing."""


@dataclass(frozen=True, slots=True)
class Inventory(Statement[Listed]):
    """Asks which leases the pool knows of this member; ends its statement."""

    after: str = ""

    def encode(self) -> Args:
        return named("inventory", self.after)

    def decode(self, reply: Reply) -> Listed:
        """Return the ids; empty for a membership that has ended."""
        if reply.terms[0] == STALE:
            return Listed(ids=(), rest="")
        _word, ids, rest = reply.terms
        return Listed(ids=ids, rest=rest)


class Restating:
    """States a process's leases to a pool in a rebuild, and returns tasks that never started.

    Args:
        session: of the pool.
        held: the leases of this process, by id; a lost one is taken out.
        on_lease_lost: called with each lease that was lost, if given.
        guard: logs what it raises.
        pause_seconds: after which a statement is repeated that the server did not take.

    Attributes:
        in_progress_seconds: how long arq's in-progress mark of an adopted task lives.
        given_back: ids of leases that were returned unstarted, as this process did not know them.
    """

    def __init__(
        self,
        session: Session,
        held: dict[str, TaskAdmissionLease],
        on_lease_lost: Callable[[TaskAdmissionLease], object] | None,
        guard: Guard,
        pause_seconds: float,
    ) -> None:
        self.in_progress_seconds = 60.0
        self.given_back: set[str] = set()
        self._session = session
        self._held = held
        self._on_lease_lost = on_lease_lost
        self._guard = guard
        self._pause_seconds = pause_seconds
        self._loop = asyncio.get_running_loop()

    def state_all(self, memory: str | None, functions: tuple[str, ...]) -> list[Submitted]:
        """Return the operations that state settings, claims, functions and leases.

        Args:
            memory: the pool's settings and claims, as it said last.
            functions: what this process's workers run.
        """
        self.given_back.clear()
        recall = [] if memory is None else [Recall(memory)]
        serve = [Serve(functions)] if functions else []
        return [
            *((statement, ignore_outcome) for statement in (*recall, *serve)),
            (self._state_held, self._take_held),
            *((payload, ignore_outcome) for payload in self._payloads_put_back()),
        ]

    def _state_held(self) -> Hold:
        """State all leases, also those whose end the pool has not acknowledged."""
        ends = self._session.unanswered(End)
        ending = [end.lease for end in ends if end.lease is not None]
        return Hold((*self._held.values(), *ending), self.in_progress_seconds)

    def _payloads_put_back(self) -> list[Payload]:
        """Return the payloads of tasks that go back into the queue with the same call."""
        return [
            Payload(end.lease_id, bytes(end.lease.item.payload))
            for end in self._session.unanswered(End)
            if isinstance(end.outcome, TaskDeferred)
            and end.lease is not None
            and end.lease.item.payload is not None
        ]

    def _take_held(self, outcome: Outcome[Held]) -> bool:
        """Report lost leases, and ask for the other leases that the pool knows."""
        if isinstance(outcome, ForebayError):
            if not self._session.is_closed:
                self._loop.call_later(self._pause_seconds, self._guard.call, self._state_again)
        elif isinstance(outcome, Held):
            self._lose(set(outcome.stale) & set(self._held))
            for lease_id in outcome.wanted:
                lease = self._held.get(lease_id)
                if lease is not None and lease.item.payload is not None:
                    self._session.submit(Payload(lease_id, bytes(lease.item.payload)))
            self._session.submit(Inventory(), self._take_listed)
        return True

    def _state_again(self) -> None:
        self._session.submit(self._state_held, self._take_held)

    def _take_listed(self, outcome: Outcome[Listed]) -> bool:
        """Return granted tasks that never reached this process, so that no code of them ran."""
        if not isinstance(outcome, Listed):
            return True
        for lease_id in outcome.ids:
            if lease_id not in self._held:
                self.given_back.add(lease_id)
                self._session.submit(End(lease_id, TaskDeferred(counts="nothing")))
        if outcome.rest:
            self._session.submit(Inventory(outcome.rest), self._take_listed)
        return True

    def lose_all(self) -> None:
        """Report the loss of every lease, at the end of the membership."""
        self._lose(list(self._held))

    def lose(self, lease_id: str) -> None:
        """Report a lease that an operator ended."""
        self._lose([lease_id] if lease_id in self._held else [])

    def _lose(self, lease_ids: Iterable[str]) -> None:
        lost = [self._held.pop(lease_id) for lease_id in lease_ids]
        for lease in lost:
            if self._on_lease_lost is not None:
                self._guard.call(self._on_lease_lost, lease)
