"""Who may go, by design 04, *Policies*, alone: walks everybody, keeps nothing, shares no code.

It has nothing of the scripts nor of ``forebay.coordinator.tasks.policies``. Heads come in order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from forebay.contracts.task_policies import BoundedBorrowTaskAdmissionPolicyConfig

HEADS_EVALUATED: Final = 32
"""At most as many heads are evaluated for each admitted task under borrow."""

Amounts = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A group's first task, which fits now, and what its group has.

    Attributes:
        asks: the task's amounts.
        limit: the group's ``admitted_limit``, None for none.
        running: how many tasks of the group run.
        out: what its leases hold.
        debt: what it owes.
    """

    group: str
    asks: Amounts
    weight: float
    limit: int | None
    running: int
    out: Counter[str]
    debt: Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a head may go, and what it borrows."""

    may_go: bool
    borrows: Amounts


def presses_on(asks: Amounts) -> set[str]:
    """Typed resources are looked at; ``submission`` only where a task asks for nothing else."""
    return set(asks) - {"submission"} or {"submission"}


class Strict:
    """A group at its limit is denied while there is peer pressure."""

    def considered(self, fitting: list[Head]) -> list[Head]:
        """All may be chosen from."""
        return fitting

    def verdict(self, head: Head, fitting: list[Head], limits: Amounts) -> Verdict:
        peers = [
            peer
            for peer in fitting
            if peer.group != head.group
            and set(peer.asks) & presses_on(head.asks)
            and (peer.limit is None or peer.running < peer.limit)
        ]
        at_limit = head.limit is not None and head.running >= head.limit
        return Verdict(may_go=not (at_limit and peers), borrows={})


class Borrow:
    """Shares under pressure; without it a group may go above its share, up to a ceiling."""

    def __init__(self, config: BoundedBorrowTaskAdmissionPolicyConfig) -> None:
        self.config = config

    def considered(self, fitting: list[Head]) -> list[Head]:
        """The first in order."""
        return fitting[:HEADS_EVALUATED]

    def share(self, head: Head, resource: str, fitting: list[Head], limits: Amounts) -> int:
        """Its weight's part among all whose head fits and wants it; alone, of two alike."""
        weights = [_exact(peer.weight) for peer in fitting if resource in peer.asks]
        own, everybody = _exact(head.weight), sum(weights, Fraction(0))
        if everybody <= own:
            everybody = own * 2
        part = Fraction(limits.get(resource, 0)) * own / everybody
        # The scripts divide in floats; a part that is whole must not round up by an error of one.
        near = float(limits.get(resource, 0)) * float(own) / float(everybody)
        assert abs(float(part) - near) < 1e-6
        units = math.floor(near) if self.config.share_rounding == "down" else math.ceil(near)
        return max(1, units if head.limit is None else min(units, head.limit))

    def _passes_in_its_turn(self, peer: Head, fitting: list[Head], limits: Amounts) -> bool:
        if peer.limit is None:
            return True
        is_within = all(
            peer.out[resource] + amount <= self.share(peer, resource, fitting, limits)
            for resource, amount in peer.asks.items()
        )
        return is_within and not any(peer.debt[resource] for resource in peer.asks)

    def _ceiling(self, head: Head, resource: str, share: int, limits: Amounts) -> int:
        for ceiling in self.config.ceilings:
            if (str(ceiling.group), ceiling.resource) == (head.group, resource):
                return ceiling.units
        if self.config.default_ceiling is not None:
            return self.config.default_ceiling
        return max(0, limits.get(resource, 0) - self.config.ceiling_reserve - share)

    def verdict(self, head: Head, fitting: list[Head], limits: Amounts) -> Verdict:
        # Without a limit it is denied by no policy; one that runs nothing is let go, and owes.
        is_free = head.limit is None or head.running == 0
        peers = [
            peer
            for peer in self.considered(fitting)
            if peer.group != head.group and self._passes_in_its_turn(peer, fitting, limits)
        ]
        borrows = {}
        for resource, amount in head.asks.items():
            share = self.share(head, resource, fitting, limits)
            above = min(amount, head.out[resource] + amount - share)
            is_pressed = resource in presses_on(head.asks) and any(
                resource in peer.asks for peer in peers
            )
            if not is_free and is_pressed and (head.debt[resource] or above > 0):
                return Verdict(may_go=False, borrows={})
            if above > 0:
                most = self._ceiling(head, resource, share, limits)
                if not is_free and head.debt[resource] + above > most:
                    return Verdict(may_go=False, borrows={})
                borrows[resource] = above
        return Verdict(may_go=True, borrows=borrows)


def _exact(weight: float) -> Fraction:
    """Weights count in millionths (ADR 0009)."""
    return Fraction(math.floor(weight * 1_000_000 + 0.5))
