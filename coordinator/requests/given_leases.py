"""Leases that a member gave itself while the server was away, until the server counts them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from forebay.contracts.errors import CoordinatorError
from forebay.contracts.requests import RequestAdmissionLease
from forebay.coordinator.requests.held_leases import HeldLeases
from forebay.coordinator.requests.operations import Acquire, Answer, Cancel
from forebay.coordinator.shard.operation import Outcome
from forebay.coordinator.shard.session import Session


@dataclass(slots=True)
class GivenLease:
    """One such lease.

    Attributes:
        lease: as its caller has it.
        is_stated: whether the server was asked for it.
    """

    lease: RequestAdmissionLease
    is_stated: bool = False


class GivenLeases(dict[str, GivenLease]):
    """Such leases by encoded id.

    Args:
        session: of the shard.
        held: the server's leases of this process.
    """

    def __init__(self, session: Session, held: HeldLeases) -> None:
        super().__init__()
        self._session = session
        self._held = held

    def state(self) -> None:
        """Acquire each on the server, so that it is counted there."""
        for encoded_id, given in self.items():
            if not given.is_stated:
                given.is_stated = True
                acquire = Acquire(given.lease.item, "")
                self._session.submit(acquire, partial(self.take, encoded_id, given))

    def state_anew(self) -> None:
        """Note that nothing of what was stated is known in a new membership."""
        for given in self.values():
            given.is_stated = False

    def take(self, encoded_id: str, given: GivenLease, outcome: Outcome[Answer]) -> bool:
        """Take what the server says; one that it grants is its own from now on.

        Returns:
            False where the lease has ended, so that what the server gave is taken back.
        """
        if self.get(encoded_id) is not given:
            return False
        if isinstance(outcome, RequestAdmissionLease):
            del self[encoded_id]
            self._held[encoded_id] = outcome
        elif isinstance(outcome, CoordinatorError):
            given.is_stated = False
        return True

    def end(self, encoded_id: str) -> bool:
        """End a lease; return whether it was one of these."""
        given = self.pop(encoded_id, None)
        if given is not None and given.is_stated:
            self._session.submit(Cancel(encoded_id))  # it may wait there
        return given is not None
