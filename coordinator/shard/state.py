"""The state of a process in a shard, from joining to leaving (design 06, *Members*).

``membership`` is the one under which batches are sent, or were until it ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forebay.coordinator.server.membership import Membership


@dataclass(frozen=True, slots=True)
class Down:
    """No member; ``was_member`` where an earlier membership was lost."""

    was_member: bool = False
    membership: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class Joining:
    """A join is under way; ``was_member`` as before it."""

    was_member: bool
    membership: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the shard, as far as this process knows."""

    membership: Membership


@dataclass(frozen=True, slots=True)
class Doubted:
    """A membership that the shard is asked to confirm; no call is sent meanwhile."""

    membership: Membership


@dataclass(frozen=True, slots=True)
class Expired:
    """The membership has ended, and the call that is under way may still be answered."""

    membership: Membership


@dataclass(frozen=True, slots=True)
class Leaving:
    """The shard is being left; no membership while a join is under way, which may make one.

    ``has_ended`` where a join was told that the shard has ended the membership.
    """

    membership: Membership | None
    has_ended: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is closed; every operation fails."""

    membership: ClassVar[None] = None


MembershipState = Down | Joining | Member | Doubted | Expired | Leaving | Closed


def may_be_confirmed(state: MembershipState) -> bool:
    """Return whether a join may confirm the membership that a shard does not know."""
    return isinstance(state, Member) or (isinstance(state, Leaving) and not state.has_ended)


def has_ended(state: MembershipState) -> bool:
    """Return whether the shard has ended the membership under which calls were sent."""
    return isinstance(state, Expired) or (isinstance(state, Leaving) and state.has_ended)


def is_lasting(state: MembershipState, membership: Membership) -> bool:
    """Return whether a membership is the present one and has not ended, as far as known here.

    What a reply or a notice grants under another one has gone, or goes, to other members.
    """
    is_present = state.membership is membership and not isinstance(state, Expired)
    return is_present and membership.is_held
