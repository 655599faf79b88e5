"""Limits that move, outages, and other users of the same key."""

from __future__ import annotations

from random import Random
from typing import Final

from bench.simulate.callers import Callers
from bench.simulate.provider import AtOnce, Drift, Provider, Steps, fixed
from bench.simulate.rows.making import (
    HALF_A_SECOND,
    LARGE,
    TO_THE_END,
    at_once,
    constant,
    fleet,
    limited,
    log_normal,
    outages,
    steps,
)
from bench.simulate.scenario import Scenario

STEPS: Final = at_once(steps((0, 12), (40, 24), (80, 12)))
AFTER_STEPS: Final = ((10.0, 40.0), (50.0, 80.0), (90.0, 120.0))
AN_OUTAGE: Final = outages((40, 60))
AFTER_OUTAGE: Final = ((70.0, TO_THE_END),)
TAKEN_AT_MOST: Final = 12
DEMO_STEPS: Final = at_once(steps((0, 24), (16, 12), (21, 24)))
WHOLE: Final = ((0.0, TO_THE_END),)
DIPS: Final = steps(
    *((0, 24), (20, 12), (23, 24), (35, 12), (40, 24)),
    *((55, 12), (63, 24), (80, 12), (92, 24), (110, 12), (114, 24)),
)
"""Halves for 3, 5, 8, 12 and 4 s."""


def _with_others(random: Random) -> Provider:
    """Return a provider of which another user takes up to a half, another part each ten seconds."""
    values, at = [(0.0, 0.0)], 0.0
    while at < 300:
        at += random.expovariate(0.1)
        values.append((at, float(random.randrange(TAKEN_AT_MOST + 1))))
    others = Steps(values=tuple(values))
    return Provider(AtOnce(fixed(24), others), latency=HALF_A_SECOND, random=random)


def _demo(name: str, about: str, hint_seconds: float | None) -> Scenario:
    """Return ``forebay demo`` without the killed worker: 4 workers of 12 slots, cap 32."""
    return Scenario(
        name,
        about,
        limited(DEMO_STEPS, latency=log_normal(0.5, 0.25), hint_seconds=hint_seconds),
        seconds=36,
        settled=WHOLE,
        fleets=(fleet(Callers(count=48), cap=32),),
        way_seconds=0.004,
    )


ROWS: Final = (
    _demo("demo", "the demo: 24, 12 for 5 s, 24 at once, retry-after 0.15 s", 0.15),
    _demo("demo-no-hint", "the same without retry-after", None),
    Scenario(
        "dips",
        "24 at once, 12 for 3, 5, 8, 12 and 4 s",
        limited(at_once(DIPS)),
        seconds=130,
        settled=((10, TO_THE_END),),
    ),
    Scenario(
        "dips-hint",
        "the same, retry-after 0.5 s",
        limited(at_once(DIPS), hint_seconds=0.5),
        seconds=130,
        settled=((10, TO_THE_END),),
    ),
    Scenario("steps", "12, 24, 12 at once", limited(STEPS), seconds=120, settled=AFTER_STEPS),
    Scenario(
        "steps-hint",
        "12, 24, 12 at once, retry-after 1 s",
        limited(STEPS, hint_seconds=1.0),
        seconds=120,
        settled=AFTER_STEPS,
    ),
    Scenario(
        "steps-constant",
        "24, then 12 at once, exactly 0.5 s: calls in lock-step",
        limited(at_once(steps((0, 24), (40, 12))), latency=constant(0.5)),
        settled=((10, 40), (50, TO_THE_END)),
    ),
    Scenario(
        "steps-small",
        "4, then 8 at once",
        limited(at_once(steps((0, 4), (60, 8)))),
        seconds=150,
        settled=((90, TO_THE_END),),
    ),
    Scenario(
        "steps-large",
        "256, 64, 256 at once",
        limited(at_once(steps((0, 256), (60, 64), (120, 256)))),
        seconds=180,
        settled=((40, 60), (80, 120), (150, 180)),
        fleets=(LARGE,),
    ),
    Scenario(
        "drift",
        "swings between 12 and 24 at once in 60 s",
        limited(at_once(Drift(low=12, high=24, seconds=60))),
        seconds=180,
    ),
    Scenario(
        "flapping",
        "24 at once, but none in 3 s of each 10",
        limited(outages(*((10.0 * n, 10.0 * n + 3) for n in range(1, 12))), at_once(24)),
        seconds=120,
    ),
    Scenario(
        "outage",
        "24 at once, all refused for 20 s",
        limited(AN_OUTAGE, at_once(24)),
        seconds=120,
        settled=AFTER_OUTAGE,
        step_at=40.0,
    ),
    Scenario(
        "outage-hint",
        "24 at once, all refused for 20 s, retry-after 5 s",
        limited(AN_OUTAGE, at_once(24), hint_seconds=5.0),
        seconds=120,
        settled=AFTER_OUTAGE,
        step_at=40.0,
    ),
    Scenario(
        "outage-256",
        "256 at once, all refused for 20 s",
        limited(AN_OUTAGE, at_once(256)),
        seconds=120,
        settled=AFTER_OUTAGE,
        step_at=40.0,
        fleets=(LARGE,),
    ),
    Scenario(
        "another-user",
        "24 at once, of which another user of the key takes 0 to 12",
        _with_others,
        seconds=300,
        settled=((60, TO_THE_END),),
    ),
)
