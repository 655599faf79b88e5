"""What a request shard promises through a loss of state (design 01, *Invariants*; design 06).

The model is told what each member was answered and remembers it, as the members do. It knows no key
and no script: it says whether an answer may be given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

INTERVAL_US: Final = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease as its grant said."""

    at_us: int
    limit: int
    cuts: int
    effective_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An attempt that waits."""

    at_us: int
    group: str


@dataclass(slots=True)
class Memory:
    """What a member remembers.

    Attributes:
        stated_in: the generation to which it has stated this, or in which it joined.
        leases: those whose calls are under way, and those that it releases.
        releasing: the leases whose calls have ended.
        waits: the attempts that wait.
        settings: the number of the operator's change that its last sweep knew.
        limit: of the window, as its last sweep said; None before.
    """

    stated_in: str
    leases: dict[str, Lease] = field(default_factory=dict)
    releasing: set[str] = field(default_factory=set)
    waits: dict[str, Asked] = field(default_factory=dict)
    settings: int = 0
    limit: int | None = None

    @property
    def calls(self) -> set[str]:
        """The leases whose calls the provider has."""
        return self.leases.keys() - self.releasing


class LossModel:
    """The promises, for members that are alive.

    Args:
        cap: that each member registers.

    Attributes:
        overrides: the caps that an operator set, in order; 0 for none, as the first.
        settings: the number of the last change that the shard itself still knows; -1 for none.
        other_caps: what the cap may be, too, since an older state was restored.
        unknown: members that nothing tells the shard of: those that joined after the state that was
            restored, and those that were cut off while all was lost.
        has_lost_since_save: whether the shard lost state after the one that may be restored, so
            that its events were numbered anew.
        limit: the lowest that the window can be raised to; None where nothing bounds it.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.members: dict[str, Memory] = {}
        self.generations: list[str] = []
        self.began_at_us = self.opens_at_us = 0
        self.overrides = [0]
        self.settings = 0
        self.limit: int | None = None
        self.is_whole = True
        self.has_lost_since_save = False
        self.unknown: set[str] = set()
        self.other_caps: set[int] = set()
        self.released: set[str] = set()
        self.granted: set[str] = set()
        self.sent_again: set[str] = set()

    @property
    def generation(self) -> str:
        return self.generations[-1]

    # -- members and generations

    def joined(self, member: str, generation: str, now_us: int) -> None:
        self.saw(generation, now_us)
        self.members[member] = Memory(generation)

    def saw(self, generation: str, now_us: int) -> None:
        """A generation never comes back once another one followed it."""
        if not self.generations or generation != self.generation:
            assert generation not in self.generations, f"{generation} came back"
            self.generations.append(generation)
            self.began_at_us, self.opens_at_us = now_us, now_us + INTERVAL_US

    def stated(self, member: str) -> None:
        memory = self.members[member]
        memory.stated_in = self.generation
        self.unknown.discard(member)
        self.settings = max(self.settings, memory.settings)
        self.limit = lowest(self.limit, memory.limit)

    def ended(self, member: str) -> None:
        """A member left, or died: nothing of it counts for the provider any more."""
        del self.members[member]

    def lost_settings(self, settings: int, limit: int | None) -> None:
        """The shard knows an older change of the settings than before, and an older limit."""
        self.settings, self.limit = settings, limit

    def swept(self, member: str, limit: int | None) -> None:
        """A member remembers what an open shard said: these settings are later than lost ones."""
        memory = self.members[member]
        if self.known_settings() < len(self.overrides) - 1:
            self.overrides.append(self.overrides[self.known_settings()])
            self.settings = len(self.overrides) - 1
        memory.settings, memory.limit = self.known_settings(), limit

    def restored(self, settings: int, limit: int | None) -> None:
        """The shard is as it was; after a loss since, its events do not tell what is later."""
        self.other_caps.add(self.effective_cap)
        if self.has_lost_since_save:
            self.other_caps.add(self._cap_of(max(0, settings)))
        self.lost_settings(settings, limit)

    def found_cap(self, cap: int) -> None:
        """The cap after a recovery is the latest that the shard and its members remember."""
        expected = {self.effective_cap, *self.other_caps}
        assert cap in expected, f"cap {cap}, expected {expected}"
        if cap != self.effective_cap:
            self.override(cap)
        self.other_caps = set()

    # -- settings

    def override(self, cap: int) -> None:
        self.overrides.append(cap)
        self.settings = len(self.overrides) - 1
        self.limit, self.other_caps = None, set()
        for memory in self.members.values():
            memory.limit = None  # a cap that rises lifts a window, and one that falls lowers it

    def known_settings(self) -> int:
        """The settings in force are the latest that the shard or a member remembers."""
        stated = (m.settings for m in self.members.values() if m.stated_in == self.generation)
        return max(0, self.settings, *stated)

    def _cap_of(self, settings: int) -> int:
        return min(self.cap, self.overrides[settings] or self.cap)

    @property
    def effective_cap(self) -> int:
        return self._cap_of(self.known_settings())

    @property
    def highest_cap(self) -> int:
        """The highest cap that may be in force before every member has stated its memory."""
        if all(memory.stated_in == self.generation for memory in self.members.values()):
            return max(self.effective_cap, *self.other_caps, 0)
        known = {memory.settings for memory in self.members.values()}
        return max(map(self._cap_of, known | {max(0, self.settings)}))

    # -- leases

    def grant(self, member: str, lease_id: str, lease: Lease, now_us: int) -> None:
        """A grant is allowed: for an attempt that waits, and within what members hold."""
        memory = self.members[member]
        assert lease_id not in self.granted, f"{lease_id} was granted twice"
        self.granted.add(lease_id)
        memory.leases[lease_id] = lease
        if lease.at_us < max(self.began_at_us, now_us):
            return  # it is told late
        for name, other in self.members.items():
            has_stated = other.stated_in == self.generation or name in self.unknown
            assert has_stated or now_us >= self.opens_at_us, f"granted before {name} has stated"
        calls = [
            lease_id
            for other in self.members.values()
            if other.stated_in == self.generation
            for lease_id in other.calls
        ]
        cap = self.highest_cap
        assert len(calls) <= cap, f"{lease_id} is above the cap {cap}: {sorted(calls)}"
        assert len(calls) <= lease.limit, f"{lease_id} is above its limit: {sorted(calls)}"

    def release(self, member: str, lease_id: str, word: str) -> None:
        """A release ends its lease once; one whose reply was lost may find that it did."""
        if word == "duplicate":
            assert lease_id in self.sent_again, f"{lease_id} was released by nobody"
        else:
            assert word == "released", f"{lease_id}: {word}"
        assert lease_id not in self.released, f"{lease_id} was released twice"
        self.released.add(lease_id)
        memory = self.members[member]
        del memory.leases[lease_id]
        memory.releasing.discard(lease_id)

    def check_order(self, granted: Iterable[Asked]) -> None:
        """Of a group nobody is granted before an attempt that is older waits no more."""
        for asked in granted:
            for memory in self.members.values():
                for name, other in memory.waits.items():
                    is_older = other.group == asked.group and other.at_us < asked.at_us
                    assert not is_older, f"{name} of {other.at_us} waits, {asked} was granted"


def lowest(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
