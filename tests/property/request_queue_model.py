"""A reference model of the fair queue, from design 03, *Order*, alone: choosing walks everybody.

What a quota has to do with it (reservations, turns by tokens) is from ADR 0007.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from forebay.contracts.identity import RequestDomain

HOUR_US: Final = 3600 * 1_000_000


@dataclass(slots=True, kw_only=True)
class Waiter:
    """One who waits."""

    attempt_id: str
    member: str
    domain: RequestDomain
    group: str
    deadline_us: float
    cost: int = 0
    arrival: int = 0
    is_aside: bool = False


@dataclass(slots=True)
class Group:
    """A request group's weight and its place in line; no tag before its first turn."""

    weight: float = 1.0
    tag: float | None = None
    place: int = 0
    idle_since_us: int = 0


@dataclass(slots=True)
class FairQueue:
    """Those who wait on one shard, and the turns that their groups took.

    Attributes:
        waiters: all who wait, by attempt id, in order of arrival.
    """

    virtual_time: float = 0.0
    places: int = 0
    waiters: dict[str, Waiter] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)

    def waiting(self, domain: RequestDomain) -> list[Waiter]:
        """Those who wait in a domain."""
        return [waiter for waiter in self.waiters.values() if waiter.domain is domain]

    def in_line(self, domain: RequestDomain) -> list[Waiter]:
        """Those who wait in a domain and stand in line: members that can be given something."""
        return [waiter for waiter in self.waiting(domain) if not waiter.is_aside]

    def waiting_of(self, group: str) -> int:
        """How many of a group stand in line, in all domains."""
        return sum(w.group == group and not w.is_aside for w in self.waiters.values())

    def tag_of(self, name: str, now_us: int) -> float | None:
        """A group's tag; one that was idle for more than an hour is forgotten."""
        group = self.groups[name]
        was_idle = not self.waiting_of(name) and now_us - group.idle_since_us > HOUR_US
        return None if was_idle else group.tag

    def set_weight(self, name: str, weight: float, now_us: int) -> None:
        """The weight set last is the group's."""
        self.groups.setdefault(name, Group(idle_since_us=now_us)).weight = weight

    def add(self, waiter: Waiter, now_us: int) -> None:
        """Put a waiter last; its group takes a new place in line if it is the first of it."""
        if not self.waiting_of(waiter.group):
            group, tag = self.groups[waiter.group], self.tag_of(waiter.group, now_us)
            group.tag = self.virtual_time if tag is None else tag
            group.place = self._next_place()
        waiter.arrival = self._next_place()
        self.waiters[waiter.attempt_id] = waiter

    def remove(self, waiter: Waiter, now_us: int) -> None:
        """Take a waiter out, whatever became of it."""
        del self.waiters[waiter.attempt_id]
        if not waiter.is_aside:
            self.groups[waiter.group].idle_since_us = now_us

    def step_aside(self, waiter: Waiter, now_us: int) -> None:
        """A suspect's waiter leaves the line and keeps its arrival; its group keeps its place."""
        waiter.is_aside = True
        self.groups[waiter.group].idle_since_us = now_us

    def come_back(self, waiter: Waiter, now_us: int) -> None:
        """A waiter stands in line again where it stood."""
        if not self.waiting_of(waiter.group):
            tag = self.tag_of(waiter.group, now_us)
            self.groups[waiter.group].tag = self.virtual_time if tag is None else tag
        waiter.is_aside = False

    def heads(self, is_open: Callable[[RequestDomain], bool]) -> list[Waiter]:
        """The first of each open domain's line: smallest tag, earlier place, first come."""
        lines = [line for domain in RequestDomain if (line := self.in_line(domain))]
        heads = [min(line, key=self._order) for line in lines if is_open(line[0].domain)]
        return sorted(heads, key=self._order)

    def heads_before(
        self, name: str, domain: RequestDomain, heads: list[Waiter], now_us: int
    ) -> list[Waiter] | None:
        """Return the heads that a newcomer stands behind; None if one is of its own line."""
        tag = self.tag_of(name, now_us) if name in self.groups else None
        tag = self.virtual_time if tag is None else tag
        before = [head for head in heads if self._order(head)[0] <= tag]
        in_line = [waiter.group for waiter in self.in_line(domain)]
        is_behind = name in in_line or any(head.domain is domain for head in before)
        return None if is_behind else before

    def _order(self, waiter: Waiter) -> tuple[float, int, int]:
        group = self.groups[waiter.group]
        assert group.tag is not None
        return (group.tag, group.place, waiter.arrival)

    def take_turn(self, name: str, cost: int, now_us: int) -> None:
        """A grant: V moves to the tag, the group's tag and place move behind it."""
        group, tag = self.groups[name], self.tag_of(name, now_us)
        self.virtual_time = max(self.virtual_time, self.virtual_time if tag is None else tag)
        group.tag = self.virtual_time + cost / group.weight
        group.place, group.idle_since_us = self._next_place(), now_us

    def settle_turn(self, name: str, difference: int, now_us: int) -> None:
        """A turn cost more or less than was thought; a forgotten group is left alone."""
        group = self.groups[name]
        if self.tag_of(name, now_us) is not None:
            assert group.tag is not None
            group.tag += difference / group.weight

    def _next_place(self) -> int:
        self.places += 1
        return self.places
