"""Which leases a pool that lost state still knows (spec 06, *Generations*; ADR 0023)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from forebay.contracts.tasks import TaskAdmissionLease
from forebay.coordinator.shard.operation import Listed, Outcome, Submitted
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard
from forebay.coordinator.tasks.registering import Inventory


class Restating:
    """Reports the loss of the leases of one process that its pool does not know any more.

    Args:
        session: of the pool.
        held: the leases of this process, by id; a lost one is taken out.
        on_lease_lost: called with each lease that was lost, if given.
        guard: logs what it raises.
    """

    def __init__(
        self,
        session: Session,
        held: dict[str, TaskAdmissionLease],
        on_lease_lost: Callable[[TaskAdmissionLease], object] | None,
        guard: Guard,
    ) -> None:
        self._session = session
        self._held = held
        self._on_lease_lost = on_lease_lost
        self._guard = guard

    def ask(self) -> Submitted:
        """Return what asks the pool for the leases that it knows of this member."""
        return Inventory(), partial(self._take_listed, set(self._held))

    def _take_listed(self, stated: set[str], outcome: Outcome[Listed]) -> bool:
        """Report the loss of each lease that was stated and is known no more."""
        if not isinstance(outcome, Listed):
            return True
        stated.difference_update(outcome.ids)
        if outcome.rest:
            self._session.submit(Inventory(outcome.rest), partial(self._take_listed, stated))
            return True
        self._lose(stated & set(self._held))
        return True

    def lose_all(self) -> None:
        """Report the loss of every lease, at the end of the membership."""
        self._lose(list(self._held))

    def _lose(self, lease_ids: Iterable[str]) -> None:
        lost = [self._held.pop(lease_id) for lease_id in lease_ids]
        for lease in lost:
            if self._on_lease_lost is not None:
                self._guard.call(self._on_lease_lost, lease)
