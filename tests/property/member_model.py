"""A reference model of who is listened to on a shard, from design 06, *Members*, alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

SILENT_INTERVALS: Final = 1.1
"""A shard that heard nobody for longer was away itself: nobody is expired early for it."""
SHORT_SILENCE_US: Final = 30_000
"""A batch that comes sooner is not looked at for that; heartbeats always are."""


@dataclass(slots=True)
class Listeners:
    """Who is listened to, and since when others are not.

    Attributes:
        deaf: members to whom nobody listens, as the test says.
        interval_us: of each member, a third of its TTL.
        look_at_us: when the shard looks at a member, unless it is heard of before.
        suspects: since when nobody listens to a member.
        back_us: when the shard was heard of again after its network was away.
    """

    deaf: set[str] = field(default_factory=set)
    interval_us: dict[str, int] = field(default_factory=dict)
    look_at_us: dict[str, int] = field(default_factory=dict)
    suspects: dict[str, int] = field(default_factory=dict)
    back_us: int = 0

    def beat(self, member: str, ttl_us: int, now_us: int, silent_us: int) -> None:
        """A member joined or renewed its membership."""
        self._note_silence(ttl_us / 3, now_us, silent_us)
        self.interval_us[member] = ttl_us // 3
        self.look_at_us[member] = now_us + ttl_us // 3
        self.suspects.pop(member, None)

    def call(self, caller: str | None, now_us: int, silent_us: int) -> None:
        """A member or an operator calls; an operator says nothing of members."""
        if silent_us > SHORT_SILENCE_US:
            self._note_silence(self.interval_us.get(caller or "", 0), now_us, silent_us)

    def _note_silence(self, interval_us: float, now_us: int, silent_us: int) -> None:
        if silent_us > SILENT_INTERVALS * interval_us:
            self.back_us = now_us

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

    def looked_at(
        self, members: dict[str, int], caller: str | None, now_us: int
    ) -> Iterator[tuple[str, str]]:
        """Look at each member whose look is due: why it is to be ended, or "" if it is not."""
        while due := [(at, name) for name, at in self.look_at_us.items() if at <= now_us]:
            _at, member = min(due)
            if members[member] <= now_us:
                yield member, "member_lost"
            elif member != caller and self._is_gone(member, caller, now_us):
                yield member, "not_listening"
            else:
                yield member, ""
                since_us = self._counted_from_us(member, now_us)
                again = since_us + self.interval_us[member]
                again = again if again > now_us else now_us + self.interval_us[member]
                self.look_at_us[member] = min(again, members[member])

    def _counted_from_us(self, member: str, now_us: int) -> int:
        """Since when a suspect's interval counts."""
        return max(self.suspects.get(member, now_us), self.back_us)

    def _is_gone(self, member: str, caller: str | None, now_us: int) -> bool:
        """Whether nobody listened for a whole interval in which the shard heard of others."""
        if member not in self.suspects:
            if member in self.deaf:
                self.suspects[member] = now_us
            return False
        if now_us - self._counted_from_us(member, now_us) < self.interval_us[member]:
            return False
        if member not in self.deaf:
            del self.suspects[member]
            return False
        if caller in self.deaf:
            self.back_us = now_us
            return False
        return True
