"""A reference model of the fair queue, from spec 03, *Order*, alone: choosing walks everybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from contracts.identity import RequestDomain

HOUR_US: Final = 3600 * 1_000_000


@dataclass(slots=True, kw_only=True)
class Waiter:
    """One who waits."""

    attempt_id: str
    member: str
    domain: RequestDomain
    group: str
    deadline_us: float
    arrival: int = 0


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

    def waiting_of(self, group: str) -> int:
        """How many of a group wait, in all domains."""
        return sum(waiter.group == group for waiter in self.waiters.values())

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
        self.groups[waiter.group].idle_since_us = now_us

    def next(self, may_go: Callable[[RequestDomain], bool]) -> Waiter | None:
        """Of those who may go: smallest tag, then earlier place, then first come."""
        able = [waiter for waiter in self.waiters.values() if may_go(waiter.domain)]
        return min(able, key=self._order, default=None)

    def _order(self, waiter: Waiter) -> tuple[float, int, int]:
        group = self.groups[waiter.group]
        assert group.tag is not None
        return (group.tag, group.place, waiter.arrival)

    def take_turn(self, name: str, now_us: int) -> None:
        """A grant: V moves to the tag, the group's tag and place move behind it."""
        group, tag = self.groups[name], self.tag_of(name, now_us)
        self.virtual_time = max(self.virtual_time, self.virtual_time if tag is None else tag)
        group.tag = self.virtual_time + 1 / group.weight
        group.place, group.idle_since_us = self._next_place(), now_us

    def _next_place(self) -> int:
        self.places += 1
        return self.places
