"""Runs a row under a rule or under the oracle, and returns its measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from random import Random
from typing import Final

from bench.harness import InvariantBrokenError
from bench.simulate.callers import PROVIDER_MODEL, Admission, Answer, Caller, Callers, World
from bench.simulate.oracle import Oracle
from bench.simulate.provider import Provider
from bench.simulate.scenario import Fleet, Scenario
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from forebay.coordinator.keys import ShardKeys, request_shard
from forebay.coordinator.requests.snapshots import decode_audit
from forebay.simulation.member import TTL_US, SimulatedMember
from forebay.simulation.server import SimulatedServer
from forebay.simulation.timeline import SECOND_US, Timeline, to_us

SAMPLE_US: Final = SECOND_US // 10
NEW_PROCESS_SECONDS: Final = 2.0
START_US: Final = SECOND_US // 50
"""Callers of a fleet begin within this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A fleet's windows at an instant, summed over its domains.

    Attributes:
        at_us: when.
        limit: leases that may be out.
        in_flight: leases that are.
    """

    at_us: int
    limit: int
    in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Record of one simulated run.

    Attributes:
        answers: of all callers, in order of time.
        provider: as it was at the end.
        samples: each fleet's windows, by the number of the fleet; none of the oracle.
    """

    answers: list[Answer]
    provider: Provider
    samples: list[list[Sample]]


def run_oracle(scenario: Scenario, seed: int) -> Run:
    """Run a row under the oracle."""
    world = _world(scenario, seed)
    cap = sum(fleet.cap for fleet in scenario.fleets)
    oracle = Oracle(world.timeline, world.provider, cap)
    for number, fleet in enumerate(scenario.fleets):
        world.timeline.at(to_us(fleet.begins), _begin, world, fleet, number, [oracle])
    world.timeline.run(to_us(scenario.seconds))
    return Run(answers=world.answers, provider=world.provider, samples=[])


def run_rule(scenario: Scenario, tuning: RequestAdmissionTuningConfig, seed: int, url: str) -> Run:
    """Run a row with the production Lua on an empty server.

    Raises:
        InvariantBrokenError: a window or a lease was beyond its bound, or the audit differs.
    """
    world = _world(scenario, seed)
    server = SimulatedServer(url, world.timeline)
    try:
        fleets = [
            _LuaFleet(world, server, fleet, number, tuning)
            for number, fleet in enumerate(scenario.fleets)
        ]
        for fleet in fleets:
            world.timeline.at(to_us(fleet.plan.begins), fleet.begin)
        for second, member in scenario.kills:
            world.timeline.at(to_us(second), fleets[0].kill, member)
        world.timeline.run(to_us(scenario.seconds))
        for fleet in fleets:
            fleet.audit(scenario.name)
    finally:
        server.close()
    return Run(
        answers=world.answers, provider=world.provider, samples=[fleet.samples for fleet in fleets]
    )


def _world(scenario: Scenario, seed: int) -> World:
    return World(
        timeline=Timeline(),
        provider=scenario.provider(Random(f"provider {seed}")),
        shortest_way_us=to_us(scenario.way_seconds),
        delay_us=to_us(scenario.delay_seconds),
        random=Random(f"callers {seed}"),
    )


class FleetMember(SimulatedMember):
    """A member whose callers call a simulated provider."""

    def __init__(
        self,
        world: World,
        server: SimulatedServer,
        keys: ShardKeys,
        name: str,
        ttl_us: int = TTL_US,
    ) -> None:
        super().__init__(server, world.timeline, keys, name, ttl_us)
        self._world = world

    def admits(self) -> bool:
        """Let the provider decide on a call that arrives there now."""
        provider = self._world.provider
        return not provider.refuses_at_random() and provider.admits(self._world.timeline.now_us)

    def leave(self) -> None:
        """Note that an admitted call has ended at the provider."""
        self._world.provider.leave()


class _LuaFleet:
    """The members of a fleet, their callers, and what their shard looks like over time."""

    def __init__(
        self,
        world: World,
        server: SimulatedServer,
        plan: Fleet,
        number: int,
        tuning: RequestAdmissionTuningConfig,
    ) -> None:
        self.plan = plan
        self.samples: list[Sample] = []
        self._world = world
        self._server = server
        self._number = number
        self._config = RequestAdmissionConfig(tuning=tuning, **plan.config)
        self._keys = shard_of(number)
        self._names = count(1)
        self._members: list[FleetMember] = []

    def begin(self) -> None:
        self._members = [self._join() for _ in range(self.plan.members)]
        _begin(self._world, self.plan, self._number, self._members)
        self._world.timeline.every(SAMPLE_US, self._sample)

    def kill(self, number: int) -> None:
        """Kill a member; a new one takes its callers over."""
        self._members[number].kill()

        def take_over() -> None:
            self._members[number] = self._join()
            share = _share(self.plan, self.plan.members, number)
            name = f"f{self._number}again{next(self._names)}"
            _start(self._world, share, self._members[number], self._number, name)

        self._world.timeline.after(to_us(NEW_PROCESS_SECONDS), take_over)

    def audit(self, scenario: str) -> None:
        report = decode_audit(self._server.call("requests/audit", self._keys.all, ["json"]))
        if not report.ok:
            raise InvariantBrokenError(
                f"{scenario}: the audit of fleet {self._number} found {report}, expected books that"
                " agree; this is a defect, please report it."
            )

    def _join(self) -> FleetMember:
        world = self._world
        name = f"f{self._number}m{next(self._names)}"
        member = FleetMember(world, self._server, self._keys, name)
        member.register(self.plan.cap, self._config)
        return member

    def _sample(self) -> None:
        limits, out = 0, 0
        for domain in self.plan.domains:
            window = self._server.window(self._keys, domain)
            limit, effective_max, in_flight = (
                float(window.get(name, 0))
                for name in ("current_limit", "effective_max", "in_flight")
            )
            if effective_max and not 1 <= limit <= effective_max:
                raise InvariantBrokenError(
                    f"the window of fleet {self._number} is {limit:g}, expected 1 to"
                    f" {effective_max:g}; this is a defect, please report it."
                )
            limits, out = limits + int(limit), out + int(in_flight)
        if out > self.plan.cap:
            raise InvariantBrokenError(
                f"fleet {self._number} has {out} leases, expected at most {self.plan.cap}; this is"
                " a defect, please report it."
            )
        now_us = self._world.timeline.now_us
        self.samples.append(Sample(at_us=now_us, limit=limits, in_flight=out))


def shard_of(fleet: int) -> ShardKeys:
    """Return the shard of a fleet: as if each had a server of its own."""
    name = PROVIDER_MODEL.provider_name
    key = ProviderModelKey(provider_name=f"{name}{fleet}", model_id=PROVIDER_MODEL.model_id)
    return request_shard(key)


def _begin(world: World, plan: Fleet, fleet: int, members: Sequence[Admission]) -> None:
    for number, member in enumerate(members):
        share = _share(plan, len(members), number)
        _start(world, share, member, fleet, f"f{fleet}m{number}")


def _share(plan: Fleet, members: int, number: int) -> list[Callers]:
    """Return what a member's callers do; of those that do not divide, the first have one more."""
    return [
        replace(
            callers,
            count=callers.count // members + (number < callers.count % members),
            per_second=callers.per_second / members,
        )
        for callers in plan.callers
    ]


def _start(
    world: World, share: Sequence[Callers], member: Admission, fleet: int, name: str
) -> None:
    timeline, random = world.timeline, world.random
    for kind, callers in enumerate(share):
        for number in range(callers.count):
            caller = Caller(
                world, member, callers, fleet, f"{name}k{kind}c{number}", is_endless=True
            )
            timeline.after(random.randrange(START_US), caller.ask)
        if callers.per_second > 0:
            _Arrivals(world, member, callers, fleet, f"{name}k{kind}r").next()


class _Arrivals:
    """Calls that begin at random instants, independent of earlier ones."""

    def __init__(
        self, world: World, member: Admission, callers: Callers, fleet: int, name: str
    ) -> None:
        self._world = world
        self._member = member
        self._callers = callers
        self._fleet = fleet
        self._name = name
        self._numbers = count(1)

    def next(self) -> None:
        pause = self._world.random.expovariate(self._callers.per_second)
        self._world.timeline.after(to_us(pause), self._arrive)

    def _arrive(self) -> None:
        if self._member.is_alive:
            name = f"{self._name}{next(self._numbers)}"
            world, member = self._world, self._member
            Caller(world, member, self._callers, self._fleet, name, is_endless=False).ask()
            self.next()
