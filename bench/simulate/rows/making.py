"""Building blocks of the rows: latencies, providers, fleets."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, Literal

from bench.simulate.callers import Callers
from bench.simulate.provider import (
    AtOnce,
    Course,
    Latency,
    Limit,
    Outages,
    Provider,
    Rate,
    Steps,
    fixed,
)
from bench.simulate.scenario import Fleet

MakeLimit = Callable[[], Limit]
MakeProvider = Callable[[Random], Provider]
TO_THE_END: Final = 1e9

LARGE: Final = Fleet(callers=(Callers(count=640),), members=16, cap=512)
"""A fleet for limits in the hundreds."""


def about(seconds: float) -> Latency:
    """Return a latency that is even over a fifth on both sides."""
    return lambda random: seconds * random.uniform(0.8, 1.2)


def exponential(seconds: float) -> Latency:
    """Return a latency with this mean: many calls are short, few are long."""
    return lambda random: random.expovariate(1 / seconds)


def log_normal(seconds: float, sigma: float) -> Latency:
    """Return a log-normal latency with this median."""
    return lambda random: seconds * random.lognormvariate(0, sigma)


def long_tailed(seconds: float) -> Latency:
    """Return a log-normal latency with this median."""
    return log_normal(seconds, 0.6)


def constant(seconds: float) -> Latency:
    """Return a latency that is always the same."""
    return lambda _random: seconds


HALF_A_SECOND: Final = about(0.5)


def steps(*values: tuple[float, float]) -> Steps:
    """Return a number that changes: from which second on, to what."""
    return Steps(values=values)


def outages(*spans: tuple[float, float]) -> MakeLimit:
    """Return a maker of spans in which all is refused."""
    return lambda: Outages(*spans)


def limited(
    *limits: MakeLimit,
    latency: Latency = HALF_A_SECOND,
    hint_seconds: float | Literal["rest"] | None = None,
    refused_at_random: float = 0.0,
    useful: float | None = None,
) -> MakeProvider:
    """Return a maker of providers with limits that are made anew for each run."""
    return lambda random: Provider(
        *(make() for make in limits),
        latency=latency,
        random=random,
        hint_seconds=hint_seconds,
        counts_refused=(Rate,),
        refused_at_random=refused_at_random,
        useful=useful,
    )


def at_once(limit: float | Course) -> MakeLimit:
    """Return a maker of a limit on calls at once."""
    course = fixed(limit) if isinstance(limit, int | float) else limit
    return lambda: AtOnce(course)


def fleet(*callers: Callers, cap: int = 64, begins: float = 0.0, members: int = 4) -> Fleet:
    """Return a fleet of four processes with a cap of 64."""
    return Fleet(callers=callers, cap=cap, begins=begins, members=members)
