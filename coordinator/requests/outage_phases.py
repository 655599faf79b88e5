"""The phases of a server's absence, as one member goes through them (docs/adr/0024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from forebay.coordinator.requests.shares import Allowance

LONGEST_PAUSE_SECONDS: Final = 1.0
"""Longest pause between two tries of a member to reach the server."""


@dataclass(frozen=True, slots=True)
class Absence:
    """A server's absence as one member noticed it; times of the loop's clock, in seconds.

    Attributes:
        since: when the member noticed it.
        ttl_seconds: of memberships.
        call_timeout_seconds: within which a call notices that the server is silent.
    """

    since: float
    ttl_seconds: float
    call_timeout_seconds: float

    @property
    def opens_at(self) -> float:
        """The instant from which shares are used, as all leases of the server have expired."""
        return self.since + self.ttl_seconds

    def stay_seconds(self, back_at: float) -> float:
        """Return for how many seconds after the server's return calls stay within shares.

        Others may not be back yet and use theirs: a try to reach the server may have begun while
        it was silent and last for a deadline, then comes a pause, then a try that works within a
        deadline. Nobody uses a share where the server was away for less than a TTL, and members
        notice that an interval and a deadline apart at most.
        """
        noticed_within = self.ttl_seconds / 3 + self.call_timeout_seconds
        if back_at - self.since + noticed_within < self.ttl_seconds:
            return 0.0
        return 2 * self.call_timeout_seconds + LONGEST_PAUSE_SECONDS


@dataclass(frozen=True, slots=True)
class Serving:
    """The server answers, and decides about every attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """The server is away, and its leases may still be held: only slots of this member are used.

    Attributes:
        absence: the absence.
        allowance: this member's share; None where none was told.
    """

    absence: Absence
    allowance: Allowance | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """The server is away and no lease of it is held any more: shares are used.

    Attributes:
        absence: the absence.
        allowance: this member's share; None where none was told.
    """

    absence: Absence
    allowance: Allowance | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Returning:
    """The server is back and is asked within the share, as others may not be back yet.

    Attributes:
        allowance: this member's share from before the absence; None where none was told.
        until: when the server decides alone again.
    """

    allowance: Allowance | None
    until: float


Phase = Serving | Holding | Sharing | Returning


def allowance_of(phase: Phase) -> Allowance | None:
    """Return the share that bounds calls in a phase; None where there is none."""
    match phase:
        case Serving():
            return None
        case Holding(allowance=allowance) | Sharing(allowance=allowance):
            return allowance
        case Returning(allowance=allowance):
            return allowance
        case _:
            assert_never(phase)


def next_phase(phase: Phase, now: float, *, is_back: bool) -> Phase:
    """Return the phase that is due; the same object where the phase lasts.

    Args:
        phase: the phase until now; the caller notices a new absence in `Returning`.
        now: the time.
        is_back: whether the server answers this member, and its membership lasts.
    """
    match phase:
        case (
            Holding(absence=absence, allowance=allowance)
            | Sharing(absence=absence, allowance=allowance)
        ) if is_back:
            return Returning(allowance=allowance, until=now + absence.stay_seconds(now))
        case Holding(absence=absence, allowance=allowance) if now >= absence.opens_at:
            return Sharing(absence=absence, allowance=allowance)
        case Returning(until=until) if is_back and now >= until:
            return Serving()
        case _:
            return phase
