"""A reference model of who is listened to on a shard, from spec 06, *Members*, alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

SILENT_INTERVALS: Final = 1.1
"""A shard that heard nobody for longer was away itself: nobody is expired early for it."""


@dataclass(slots=True)
class Listeners:
    """Who is listened to, and since when others are not.

    Attributes:
        deaf: members to whom nobody listens, as the test says.
        interval_us: of each member, a third of its TTL.
        look_at_us: when the shard looks at a member, unless it is heard of before.
        suspects: since when nobody listens to a member.
    """

    deaf: set[str] = field(default_factory=set)
    interval_us: dict[str, int] = field(default_factory=dict)
    look_at_us: dict[str, int] = field(default_factory=dict)
    suspects: dict[str, int] = field(default_factory=dict)

    def beat(self, member: str, ttl_us: int, now_us: int) -> None:
        """A member joined or renewed its membership."""
        self.interval_us[member] = ttl_us // 3
        self.look_at_us[member] = now_us + ttl_us // 3
        self.suspects.pop(member, None)

    def forget(self, member: str) -> None:
        """A membership is over."""
        for of_members in (self.interval_us, self.look_at_us, self.suspects):
            of_members.pop(member, None)

    def is_present(self, member: str, caller: str | None, now_us: int) -> bool:
        """Whether a member can be given something; one that cannot is a suspect from now on."""
        if member == caller:
            return True
        if member not in self.suspects and member in self.deaf:
            self.suspects[member] = now_us
        return member not in self.suspects

    def ended(
        self, members: dict[str, int], caller: str | None, now_us: int, silent_us: int
    ) -> Iterator[tuple[str, str]]:
        """Look at each member whose look is due, and tell which are to be ended, and why."""
        while due := [(at, name) for name, at in self.look_at_us.items() if at <= now_us]:
            _at, member = min(due)
            if members[member] <= now_us:
                yield member, "member_lost"
            elif member != caller and self._is_gone(member, now_us, silent_us):
                yield member, "not_listening"
            else:
                again = self.suspects.get(member, now_us) + self.interval_us[member]
                again = again if again > now_us else now_us + self.interval_us[member]
                self.look_at_us[member] = min(again, members[member])

    def _is_gone(self, member: str, now_us: int, silent_us: int) -> bool:
        """Whether nobody listened for a whole interval in which the shard heard of others."""
        interval_us = self.interval_us[member]
        if member not in self.suspects:
            if member in self.deaf:
                self.suspects[member] = now_us
            return False
        if now_us - self.suspects[member] < interval_us:
            return False
        if member not in self.deaf:
            del self.suspects[member]
            return False
        if silent_us > SILENT_INTERVALS * interval_us:
            self.suspects[member] = now_us
            return False
        return True
