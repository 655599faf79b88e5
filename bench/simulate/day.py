"""A day of one provider/model: bursts, killed members, a limit that moves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final

from bench.harness import InvariantBrokenError
from bench.simulate.callers import Caller, Callers, World
from bench.simulate.provider import AtOnce, Provider, Steps
from bench.simulate.rows.making import log_normal
from bench.simulate.simulation import NEW_PROCESS_SECONDS, FleetMember, shard_of
from forebay.contracts.identity import RequestDomain
from forebay.contracts.settings import RequestAdmissionConfig
from forebay.coordinator.requests.snapshots import decode_audit
from forebay.simulation.server import SimulatedServer
from forebay.simulation.timeline import SECOND_US, Timeline, to_us

CAP: Final = 64
LIMITS: Final = (4, 16)
"""A provider's hidden limit of calls at once lies between these, and moves every few hours."""
BURST_CALLS: Final = 20
LATENCY: Final = log_normal(25.0, 0.4)
DRAIN_SECONDS: Final = 3600.0
TENANTS: Final = (("atlas", 3.0), ("borealis", 2.0), ("cumulus", 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A fleet for a day.

    Attributes:
        seed: the same one gives the same day.
        members: processes; each uses two provider/models.
        models: provider/models, each a shard.
        hours: how long the day is.
        ttl_seconds: of each membership.
        bursts: of a member for each of its provider/models, in 24 hours.
        deaths: of a member, in 24 hours; another one takes its place two seconds later.
    """

    seed: int = 1
    members: int = 1_000
    models: int = 100
    hours: float = 24.0
    ttl_seconds: float = 600.0
    bursts: float = 48.0
    deaths: float = 1.0

    @property
    def seconds(self) -> float:
        """The length of the day."""
        return self.hours * 3600.0

    def members_of(self, model: int) -> list[int]:
        """Return the numbers of the members that use a provider/model."""
        per_model = max(1, self.members // self.models)
        return [
            number
            for number in range(self.members)
            if model in {number % self.models, number // per_model % self.models}
        ]

    def deaths_of(self, member: int) -> Iterator[float]:
        """Yield the seconds at which a member is killed: the same in both of its shards."""
        random = Random(f"{self.seed} member {member}")
        second = random.expovariate(self.deaths / 86_400)
        while second < self.seconds:
            yield second
            second += NEW_PROCESS_SECONDS + random.expovariate(self.deaths / 86_400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Record of a provider/model's day.

    Attributes:
        model: its number.
        members: that used it, with those that took a dead one's place.
        deaths: members that were killed.
        served: calls that the provider served.
        refused: calls that it refused.
        digest: SHA-256 of all answers and their instants.
    """

    model: int
    members: int
    deaths: int
    served: int
    refused: int
    digest: str


class _Shard:
    """The members of one provider/model over a day."""

    def __init__(self, fleet: Fleet, model: int, server: SimulatedServer, world: World) -> None:
        self.joined = 0
        self.killed = 0
        self._fleet = fleet
        self._server = server
        self._world = world
        self._keys = shard_of(model)
        self._numbers = count(1)
        self._members: dict[int, FleetMember] = {}

    def begin(self, members: Sequence[int]) -> None:
        """Start members, their bursts, their deaths, and hourly audits."""
        timeline = self._world.timeline
        for member in members:
            timeline.after(self._world.random.randrange(SECOND_US), self._join, member)
            self._burst_later(member)
            for second in self._fleet.deaths_of(member):
                timeline.at(to_us(second), self._kill, member)
        timeline.every(60 * SECOND_US, self._check)
        timeline.every(3600 * SECOND_US, self.audit)

    def audit(self, *, is_last: bool = False) -> None:
        """Compare the shard's books.

        Raises:
            InvariantBrokenError: they differ, or a lease or waiter is left at the end.
        """
        report = decode_audit(self._server.call("requests/audit", self._keys.all, ["json"]))
        window = self._server.window(self._keys, RequestDomain.CHAT)
        left = int(window.get("in_flight", 0)) if is_last else 0
        if not report.ok or left:
            raise InvariantBrokenError(
                f"the audit of {self._keys} found {report} and {left} leases left, expected books"
                " that agree; this is a defect, please report it."
            )

    def _join(self, member: int) -> None:
        name = f"m{member}n{next(self._numbers)}"
        joined = FleetMember(
            self._world, self._server, self._keys, name, to_us(self._fleet.ttl_seconds)
        )
        joined.register(CAP, RequestAdmissionConfig())
        self._members[member] = joined
        self.joined += 1

    def _kill(self, member: int) -> None:
        self._members[member].kill()
        self.killed += 1
        self._world.timeline.after(to_us(NEW_PROCESS_SECONDS), self._join, member)

    def _burst_later(self, member: int) -> None:
        pause = self._world.random.expovariate(self._fleet.bursts / 86_400)
        at_us = self._world.timeline.now_us + to_us(1.0 + pause)
        if at_us < to_us(self._fleet.seconds):
            self._world.timeline.at(at_us, self._burst, member)

    def _burst(self, member: int) -> None:
        admission = self._members[member]
        tenant, weight = TENANTS[member % len(TENANTS)]
        callers = Callers(tenant=tenant, weight=weight)
        for _ in range(self._world.random.randint(1, BURST_CALLS) if admission.is_alive else 0):
            name = f"m{member}c{next(self._numbers)}"
            Caller(self._world, admission, callers, member, name, is_endless=False).ask()
        self._burst_later(member)

    def _check(self) -> None:
        window = self._server.window(self._keys, RequestDomain.CHAT)
        if not window:
            return
        limit, out = float(window["current_limit"]), int(window["in_flight"])
        if not 1 <= limit <= CAP or out > CAP:
            raise InvariantBrokenError(
                f"{self._keys} has a window of {limit:g} and {out} leases, expected 1 to {CAP};"
                " this is a defect, please report it."
            )


def simulate_day(fleet: Fleet, model: int, url: str) -> Day:
    """Run a provider/model's day with the production Lua on an empty server.

    Args:
        fleet: with the seed.
        model: the number of the provider/model.
        url: of an embedded server, which is emptied.

    Raises:
        InvariantBrokenError: an audit differed, a window was beyond its bounds, or a lease is left.
    """
    world = World(
        timeline=Timeline(),
        provider=_provider(Random(f"{fleet.seed} provider {model}"), fleet.seconds),
        shortest_way_us=1_000,
        delay_us=20_000,
        random=Random(f"{fleet.seed} callers {model}"),
    )
    server = SimulatedServer(url, world.timeline)
    try:
        shard = _Shard(fleet, model, server, world)
        shard.begin(fleet.members_of(model))
        world.timeline.run(to_us(fleet.seconds + DRAIN_SECONDS))
        shard.audit(is_last=True)
    finally:
        server.close()
    served = sum(answer.is_success for answer in world.answers)
    digest = hashlib.sha256()
    for answer in world.answers:
        digest.update(repr(tuple(answer)).encode())
    return Day(
        model=model,
        members=shard.joined,
        deaths=shard.killed,
        served=served,
        refused=len(world.answers) - served,
        digest=digest.hexdigest(),
    )


def _provider(random: Random, seconds: float) -> Provider:
    """Return a provider whose limit moves every one to six hours."""
    values, second = [], 0.0
    while second < seconds:
        values.append((second, float(random.randint(*LIMITS))))
        second += random.uniform(3600, 6 * 3600)
    return Provider(AtOnce(Steps(values=tuple(values))), latency=LATENCY, random=random)
