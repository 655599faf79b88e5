"""A process's membership in a shard (design 06, *Members*)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from forebay.coordinator.keys import ShardKeys


def boot_seconds() -> float:
    """Return seconds on a clock that runs on while the machine sleeps."""
    clock: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def member_keys(keys: ShardKeys) -> list[str]:
    """Return every key of a shard in the order of the KEYS of ``member/join`` and its heartbeat."""
    kinds = ("meta", "members", "events", "checks", "intervals", "suspects", "awaited")
    first = [keys[kind] for kind in kinds]
    return [*first, *(key for key in keys.all if key not in first)]


@dataclass(slots=True, kw_only=True)
class Membership:
    """One process's place in one shard, from joining to leaving or expiry.

    Attributes:
        member_id: never used before and never used again.
        generation: the shard's generation, as of the last join or confirmation.
        run_id: of the server then.
        ttl_seconds: how long a heartbeat lasts; grows with the number of members.
        acknowledged_at: when the last acknowledged heartbeat was sent, in ``boot_seconds``.
        next_beat_at: when the next one is due.
        on_unknown: called on the loop when a heartbeat finds no such member.
    """

    member_id: str
    generation: str
    keys: ShardKeys
    run_id: str
    ttl_seconds: float
    acknowledged_at: float
    on_unknown: Callable[[Membership], None]
    next_beat_at: float = field(default=0.0)

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the TTL since the last acknowledged heartbeat is over."""
        return self.acknowledged_at + self.ttl_seconds - boot_seconds()

    @property
    def is_held(self) -> bool:
        """Whether the last acknowledged heartbeat is younger than the TTL."""
        return self.remaining_seconds > 0
