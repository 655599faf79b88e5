"""What both rules of a window share in the reference model (design 03, *The window*; design 11)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Said = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEnd:
    """What a rule knows of a lease that ends.

    Attributes:
        in_flight: leases of the domain before this one is taken off.
        cuts: how many cuts the window had had when the lease was granted.
        limit: the window's limit at that time.
        hint_us: the provider's retry-after, clamped to the longest cooldown; 0 without one.
        in_a_row: refusals by now, this one too, with nothing served between.
        granted_us: when the lease was granted.
    """

    now_us: int
    in_flight: int
    cuts: int
    limit: int = 0
    hint_us: int = 0
    in_a_row: int = 1
    granted_us: int = 0

    @property
    def left(self) -> int:
        """Leases of the domain without this one."""
        return self.in_flight - 1


@dataclass(slots=True, kw_only=True)
class WindowState:
    """A domain's window: its limit, and what a rule keeps of the past.

    Attributes:
        limit: how many leases may be out.
        noted: the noted ceiling, 0 for none.
        cuts: congestion events so far.
        credit: successes that count towards the next step up.
        untold_from: the limit from which a return began that no event has told yet, 0 for none.
        soon_tries: how many tries still come soon after a fall.
        step: the last step of the try under way, 0 where none is; 1 in the climb from birth.
        row: fresh refusals since the last fresh success.
        served: successes so far.
        served_at_refusal: ``served`` at the last fresh refusal.
        top: what was in flight after the last refusal if that is to be the ceiling when serving
            goes on, else 0.
        periods: minutes that were alike, less what spoke against a budget by the minute.
        budget: what was served in the last of them.
        opened_us: when the present one began.
        served_at_opening: ``served`` then.
        used_up_at: what may be served in this minute alone; 0 where that is the budget.
    """

    effective_max: int
    limit: int
    noted: int = 0
    cuts: int = 0
    credit: int = 0
    untold_from: int = 0
    soon_tries: int = 0
    step: int = 0
    row: int = 0
    served: int = 0
    served_at_refusal: int = 0
    top: int = 0
    quiet_until_us: int = 0
    blocked_until_us: int = 0
    periods: int = 0
    budget: int = 0
    opened_us: int = 0
    served_at_opening: int = 0
    used_up_at: int = 0

    @property
    def ceiling(self) -> int:
        """What was served before, as far as it is allowed now."""
        return min(self.noted or self.effective_max, self.effective_max)

    def block(self, until_us: int) -> None:
        """Begin a cooldown, or extend the one there is."""
        self.blocked_until_us = max(self.blocked_until_us, until_us)

    def move(self, limit: int, reason: str) -> Iterator[Said]:
        """Move the limit and tell it, so that each told move begins where the last one ended."""
        if limit != self.limit:
            yield from self.tell_return()
            yield from said_of_move(self.limit, limit, reason)
            self.limit = limit

    def tell_return(self) -> Iterator[Said]:
        """Tell the steps of a return together."""
        began, self.untold_from = self.untold_from, 0
        if began:
            yield from said_of_move(began, self.limit, "return")


def said_of_move(before: int, after: int, reason: str) -> Iterator[Said]:
    """Say that a limit moved, if it did."""
    if after != before:
        kind = "increased" if after > before else "decreased"
        yield f"request_limit_{kind}", before, after, reason
