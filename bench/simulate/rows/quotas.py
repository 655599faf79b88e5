"""Limits by the minute, of which no header tells."""

from __future__ import annotations

from typing import Final

from bench.simulate.callers import Callers
from bench.simulate.provider import ByTheMinute, Sliding, fixed
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
"""A quota that nobody reaches."""


def by_the_minute(*values: tuple[float, float]) -> MakeLimit:
    """Return a maker of a quota that changes at seconds."""
    course = steps(*values)
    return lambda: ByTheMinute(course)


A_MINUTE: Final = by_the_minute((0, 200))


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
    _row(
        "outages-by-the-minute",
        "24 at once, none in the second half of each minute",
        limited(outages(*((60.0 * n + 30, 60.0 * n + 60) for n in range(7))), at_once(24)),
    ),
)
