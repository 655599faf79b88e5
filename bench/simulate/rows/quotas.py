"""Limits by the minute that no header states."""

from __future__ import annotations

from random import Random
from typing import Final

from bench.simulate.callers import Callers
from bench.simulate.provider import ByTheMinute, Provider, Rate, Sliding, fixed
from bench.simulate.rows.making import (
    TO_THE_END,
    MakeLimit,
    MakeProvider,
    about,
    at_once,
    fleet,
    limited,
    outages,
    steps,
)
from bench.simulate.scenario import FLOOD, Fleet, Scenario

FROM_240: Final = ((240.0, TO_THE_END),)
SHORT: Final = about(0.2)
OPEN_ENDED: Final = 1e9
"""A quota that is never reached."""


def by_the_minute(*values: tuple[float, float]) -> MakeLimit:
    """Return a maker of a quota that changes at seconds."""
    course = steps(*values)
    return lambda: ByTheMinute(course)


A_MINUTE: Final = by_the_minute((0, 200))


def _shared(taken_at_most: int) -> MakeProvider:
    """Return a maker of 200 a minute, less what another user takes: each minute another number."""

    def make(random: Random) -> Provider:
        left = steps(*((60.0 * n, 200 - random.randint(0, taken_at_most)) for n in range(20)))
        return Provider(ByTheMinute(left), latency=SHORT, random=random)

    return make


def _down(count: int, seconds: float, *limits: MakeLimit) -> MakeProvider:
    """Return a maker of a provider that is down for seconds, so many times, a minute apart."""
    spans = ((40.0 + 60 * n, 40.0 + 60 * n + seconds) for n in range(count))
    return limited(outages(*spans), *limits)


def _outages(name: str, about_: str, provider: MakeProvider, seconds: float = 420.0) -> Scenario:
    return Scenario(
        name,
        about_,
        provider,
        seconds=seconds,
        settled=((40.0, TO_THE_END),),
        fleets=(fleet(FLOOD),),
    )


def _row(
    name: str,
    about_: str,
    provider: MakeProvider,
    seconds: float = 420.0,
    fleet_: Fleet | None = None,
) -> Scenario:
    return Scenario(
        name,
        about_,
        provider,
        seconds=seconds,
        settled=FROM_240,
        fleets=(fleet_ or fleet(FLOOD),),
    )


ROWS: Final = (
    _row("minute-200", "200 a minute of the clock", limited(A_MINUTE, latency=SHORT)),
    _row(
        "minute-200-hint",
        "200 a minute, retry-after 5 s",
        limited(A_MINUTE, latency=SHORT, hint_seconds=5.0),
    ),
    _row(
        "minute-200-rest",
        "200 a minute, retry-after says the rest of it",
        limited(A_MINUTE, latency=SHORT, hint_seconds="rest"),
    ),
    _row(
        "minute-200-late",
        "200 a minute, that begins at second 17",
        limited(lambda: ByTheMinute(fixed(200), begins_us=17_000_000), latency=SHORT),
    ),
    _row(
        "minute-200-demand-4",
        "200 a minute, 4 calls begin a second",
        limited(A_MINUTE, latency=SHORT),
        fleet_=fleet(Callers(per_second=4)),
    ),
    _row(
        "minute-200-demand-3",
        "200 a minute, 3 calls begin a second",
        limited(A_MINUTE, latency=SHORT),
        fleet_=fleet(Callers(per_second=3)),
    ),
    _row(
        "minute-1000-at-24",
        "1000 a minute, 24 at once",
        limited(by_the_minute((0, 1000)), at_once(24)),
    ),
    _row(
        "minute-2700-at-24",
        "2700 a minute, 24 at once",
        limited(by_the_minute((0, 2700)), at_once(24)),
    ),
    _row("minute-60-5s", "60 a minute, 5 s", limited(by_the_minute((0, 60)), latency=about(5))),
    _row("sliding-200", "200 in any 60 s", limited(lambda: Sliding(200), latency=SHORT)),
    _row(
        "minute-200-400",
        "200, from 600 s on 400 a minute",
        limited(by_the_minute((0, 200), (600, 400)), latency=SHORT),
        seconds=1200,
    ),
    _row(
        "minute-200-100",
        "200, from 600 s on 100 a minute",
        limited(by_the_minute((0, 200), (600, 100)), latency=SHORT),
        seconds=1200,
    ),
    _row(
        "minute-200-none",
        "24 at once, until 600 s 200 a minute too",
        limited(by_the_minute((0, 200), (600, OPEN_ENDED)), at_once(24)),
        seconds=850,
    ),
    _row("minute-200-shared-5", "200 a minute, of which another user takes 0 to 5", _shared(5)),
    _row("minute-200-shared-20", "200 a minute, of which another user takes 0 to 20", _shared(20)),
    _outages(
        "beat-3", "24 at once, down for 20 s three times, 60 s apart", _down(3, 20, at_once(24))
    ),
    _outages(
        "beat-5-step",
        "24 at once, down for 20 s five times, 60 s apart, from 310 s on 12 at once",
        _down(5, 20, at_once(steps((0, 24), (310, 12)))),
    ),
    _outages(
        "beat-5-then-off",
        "24 at once, down for 20 s five times, 60 s apart, then for 60 s off the beat",
        limited(
            outages(*((40.0 + 60 * n, 60.0 + 60 * n) for n in range(5)), (320, 380)), at_once(24)
        ),
        480.0,
    ),
    _outages(
        "beat-10-short",
        "24 at once, down for 2 s ten times, 60 s apart",
        _down(10, 2, at_once(24)),
        660.0,
    ),
    _outages(
        "beat-5-rate",
        "limit_req 30/s, burst 20, limit_conn 8, down for 20 s five times, 60 s apart",
        limited(
            outages(*((40.0 + 60 * n, 60.0 + 60 * n) for n in range(5))),
            lambda: Rate(fixed(30), 20),
            at_once(8),
            latency=SHORT,
        ),
    ),
    _outages(
        "beat-5-noise",
        "24 at once, 1 % refused at random, down for 20 s five times, 60 s apart",
        limited(
            outages(*((40.0 + 60 * n, 60.0 + 60 * n) for n in range(5))),
            at_once(24),
            refused_at_random=0.01,
        ),
    ),
    _row(
        "outages-by-the-minute",
        "24 at once, none in the second half of each minute",
        limited(outages(*((60.0 * n + 30, 60.0 * n + 60) for n in range(7))), at_once(24)),
    ),
)
