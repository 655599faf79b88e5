"""Leases that a member granted itself while the server was away, until the server counts them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from forebay.contracts.errors import CoordinatorError
from forebay.contracts.identity import RequestDomain
from forebay.contracts.requests import RequestAdmissionLease
from forebay.coordinator.requests.held_leases import HeldLeases
from forebay.coordinator.requests.operations import Acquire, Answer, Cancel, decode_answer
from forebay.coordinator.requests.releasing import Release
from forebay.coordinator.shard.operation import Outcome
from forebay.coordinator.shard.session import Session


class Slots:
    """Server slots that a member keeps because their calls ended while the server is away.

    The server counts such a slot until it gets the release, so another call may use it meanwhile.

    Args:
        session: of the shard.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._free: dict[RequestDomain, deque[Release]] = {
            domain: deque() for domain in RequestDomain
        }

    def has(self, domain: RequestDomain) -> bool:
        """Whether a slot of a domain is free."""
        return bool(self._free[domain])

    def add(self, release: Release) -> None:
        """Keep the release of a slot that the next call may use."""
        self._free[release.lease.item.resource.domain].append(release)

    def take(self, domain: RequestDomain) -> Release:
        """Return the release of a free slot, for the lease that uses it."""
        return self._free[domain].popleft()

    def release_unused(self) -> None:
        """Send the releases of all free slots."""
        for line in self._free.values():
            while line:
                self._session.submit(line.popleft())


@dataclass(slots=True)
class GivenLease:
    """A lease that a member granted itself.

    Attributes:
        lease: as its caller has it.
        slot: the release of the server's slot that it uses; None where it uses the share.
        is_stated: whether the server was asked for it in this membership.
        is_known: whether the server may hold it for this member, or let it wait.
    """

    lease: RequestAdmissionLease
    slot: Release | None = None
    is_stated: bool = False
    is_known: bool = False


class GivenLeases(dict[str, GivenLease]):
    """The leases that a member granted itself, by encoded id.

    Args:
        session: of the shard.
        held: the server's leases of this process.

    Attributes:
        slots: the server's slots that these leases may use.
    """

    def __init__(self, session: Session, held: HeldLeases) -> None:
        super().__init__()
        self.slots = Slots(session)
        self._session = session
        self._held = held

    def state(self) -> None:
        """Acquire each lease on the server, so that the server counts it."""
        for encoded_id, given in self.items():
            if not given.is_stated:
                given.is_stated = given.is_known = True
                acquire = Acquire(given.lease.item, "")
                self._session.submit(acquire, partial(self.take, encoded_id, given))

    def hold(self) -> dict[str, RequestAdmissionLease]:
        """Return all leases, to be stated to a shard that lost its state."""
        for given in self.values():
            given.is_known = True
        return {encoded_id: given.lease for encoded_id, given in self.items()}

    def state_anew(self) -> None:
        """Note that the server knows none of these leases in a new membership."""
        for given in self.values():
            given.is_stated = False

    def on_notice(self, kind: str, encoded_id: str, terms: Sequence[Any]) -> bool:
        """Apply a notice to the lease that it names; return whether there is such a lease."""
        membership, given = self._session.membership, self.get(encoded_id)
        if given is None or membership is None:
            return False
        answer = decode_answer(
            given.lease.item, [kind, *terms], membership.generation, membership.member_id
        )
        return self.take(encoded_id, given, answer)

    def take(self, encoded_id: str, given: GivenLease, outcome: Outcome[Answer]) -> bool:
        """Apply the server's answer; a lease that the server grants is removed here.

        Returns:
            False where the lease has ended, so that what the server gave is taken back.
        """
        if self.get(encoded_id) is not given:
            return False
        if isinstance(outcome, RequestAdmissionLease):
            del self[encoded_id]
            self._held[encoded_id] = outcome
            if given.slot is not None:
                self._session.submit(given.slot)
        elif isinstance(outcome, CoordinatorError):
            given.is_stated = False
        return True

    def end(self, encoded_id: str, *, keeps_slot: bool) -> bool:
        """End a lease; return whether the member granted it itself.

        Args:
            encoded_id: its id.
            keeps_slot: whether the server's slot that it used may be used by the next.
        """
        given = self.pop(encoded_id, None)
        if given is None:
            return False
        if given.is_known:
            self._session.submit(Cancel(encoded_id))
        if given.slot is not None and keeps_slot:
            self.slots.add(given.slot)
        elif given.slot is not None:
            self._session.submit(given.slot)
        return True
