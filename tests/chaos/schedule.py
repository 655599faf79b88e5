"""The faults of a chaos run: which, when, to whom, for how long. A pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

VICTIMS: Final = 64
"""A victim is a number below this; a run takes it modulo the processes of the kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The properties of a kind of fault.

    Attributes:
        weight: how often it is drawn, relative to other kinds.
        seconds: the shortest and the longest time that it lasts.
    """

    weight: float
    seconds: tuple[float, float] = (0.0, 0.0)


SHORT, LONG = (0.2, 1.5), (3.5, 5.0)
"""Shorter than an interval of the heartbeat and a half; longer than the TTL."""

KINDS: Final[dict[str, Kind]] = {
    "worker_killed": Kind(weight=3),
    "worker_stopped": Kind(weight=1, seconds=SHORT),
    "worker_stopped_long": Kind(weight=0.5, seconds=LONG),
    "worker_blocked": Kind(weight=1, seconds=(1.0, 4.5)),
    "caller_killed": Kind(weight=2),
    "caller_stopped": Kind(weight=1, seconds=SHORT),
    "caller_stopped_long": Kind(weight=0.5, seconds=LONG),
    "caller_blocked": Kind(weight=1, seconds=(1.0, 4.5)),
    "driver_killed": Kind(weight=1),
    "driver_stopped": Kind(weight=0.5, seconds=SHORT),
    "server_killed": Kind(weight=1, seconds=(0.1, 0.5)),
    "server_stopped": Kind(weight=1, seconds=SHORT),
    "server_stopped_long": Kind(weight=0.3, seconds=LONG),
    "server_failed_over": Kind(weight=0.7),
    "functions_flushed": Kind(weight=1),
    "connections_cut": Kind(weight=3),
    "all_connections_cut": Kind(weight=1),
    "connections_refused": Kind(weight=1, seconds=SHORT),
    "connections_blackholed": Kind(weight=1, seconds=SHORT),
    "connections_blackholed_long": Kind(weight=0.5, seconds=LONG),
    "provider_failing": Kind(weight=1, seconds=(1.0, 3.0)),
    "provider_refusing": Kind(weight=1, seconds=(1.0, 3.0)),
    "provider_slow": Kind(weight=1, seconds=(1.0, 3.0)),
    "provider_limit_moved": Kind(weight=2),
    "cap_moved": Kind(weight=2),
    "weights_moved": Kind(weight=2),
    "pool_limit_moved": Kind(weight=2),
    "pool_paused": Kind(weight=1, seconds=(0.2, 2.0)),
    "request_key_deleted": Kind(weight=2),
    "pool_key_deleted": Kind(weight=2),
    "payload_deleted": Kind(weight=1),
    "server_flushed": Kind(weight=1),
    "server_restarted_empty": Kind(weight=1, seconds=(0.1, 0.5)),
    "server_failed_over_losing": Kind(weight=1, seconds=(0.1, 0.8)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        number: its place in the schedule.
        kind: a name of `KINDS`.
        at: seconds since the run began.
        victim: which process, key or value, of those that there are.
        seconds: how long it lasts; 0 for an instant.
    """

    number: int
    kind: str
    at: float
    victim: int
    seconds: float


def schedule(seed: int, seconds: float, per_minute: float, kinds: Sequence[str]) -> list[Fault]:
    """Return the faults of a run, in order of time.

    Args:
        seed: equal seeds, equal faults.
        seconds: within which they fall.
        per_minute: how many in the mean; at least one of each kind where there is room.
        kinds: names of `KINDS`.
    """
    draw = random.Random(seed)
    count = max(1, round(seconds * per_minute / 60))
    chosen = draw.sample(list(kinds), min(count, len(kinds)))
    weights = [KINDS[kind].weight for kind in kinds]
    chosen += draw.choices(kinds, weights, k=count - len(chosen))
    draw.shuffle(chosen)
    times = sorted(draw.uniform(0, seconds) for _ in chosen)
    return [
        Fault(
            number=number,
            kind=kind,
            at=round(at, 3),
            victim=draw.randrange(VICTIMS),
            seconds=round(draw.uniform(*KINDS[kind].seconds), 3),
        )
        for number, (kind, at) in enumerate(zip(chosen, times, strict=True))
    ]
