"""Limits that stand still: concurrency, rates, noise, servers that only slow down."""

from __future__ import annotations

from typing import Final

from bench.simulate.provider import Rate, fixed
from bench.simulate.rows.making import (
    LARGE,
    TO_THE_END,
    about,
    at_once,
    constant,
    exponential,
    limited,
    long_tailed,
    steps,
)
from bench.simulate.scenario import Scenario

FROM_60: Final = ((60.0, TO_THE_END),)

ROWS: Final = (
    Scenario("at-1", "1 at once", limited(at_once(1)), seconds=150, settled=FROM_60),
    Scenario("at-4", "4 at once", limited(at_once(4)), seconds=150, settled=FROM_60),
    Scenario("at-8", "8 at once, 0.2 s", limited(at_once(8), latency=about(0.2)), seconds=60),
    Scenario("at-24", "24 at once", limited(at_once(24))),
    Scenario("at-24-hint", "24 at once, retry-after 1 s", limited(at_once(24), hint_seconds=1.0)),
    Scenario(
        "at-24-busy",
        "24 at once, a busy machine: 30 ms more each way in the mean",
        limited(at_once(24)),
        delay_seconds=0.03,
    ),
    Scenario(
        "at-24-busy-hint",
        "the same, retry-after 1 s",
        limited(at_once(24), hint_seconds=1.0),
        delay_seconds=0.03,
    ),
    Scenario(
        "at-24-constant", "24 at once, exactly 0.5 s", limited(at_once(24), latency=constant(0.5))
    ),
    Scenario(
        "at-24-exponential",
        "24 at once, exponential latency",
        limited(at_once(24), latency=exponential(0.5)),
    ),
    Scenario(
        "at-24-long-tailed",
        "24 at once, log-normal latency",
        limited(at_once(24), latency=long_tailed(0.5)),
    ),
    Scenario("at-24-120ms", "24 at once, 120 ms", limited(at_once(24), latency=about(0.12))),
    Scenario(
        "at-24-50ms",
        "24 at once, 50 ms, 4 ms each way",
        limited(at_once(24), latency=about(0.05)),
        way_seconds=0.004,
    ),
    Scenario(
        "at-24-5s",
        "24 at once, 5 s",
        limited(at_once(24), latency=about(5)),
        seconds=600,
        settled=((200, TO_THE_END),),
    ),
    Scenario("at-24-far", "24 at once, 60 ms each way", limited(at_once(24)), way_seconds=0.06),
    Scenario(
        "at-256",
        "256 at once, cap 512, 640 callers in 16 processes",
        limited(at_once(256)),
        fleets=(LARGE,),
    ),
    Scenario("at-64", "the limit is the cap: nothing is refused", limited(at_once(64))),
    Scenario(
        "noise-1",
        "24 at once, 1 % refused at random",
        limited(at_once(24), refused_at_random=0.01),
        seconds=180,
        settled=FROM_60,
    ),
    Scenario(
        "noise-3",
        "24 at once, 3 % refused at random",
        limited(at_once(24), refused_at_random=0.03),
        seconds=180,
        settled=FROM_60,
    ),
    Scenario("slow-server", "never refuses, slower beyond 24", limited(at_once(1000), useful=24)),
    Scenario(
        "rate-30",
        "limit_req 30/s, burst 20",
        limited(lambda: Rate(fixed(30), 20), latency=about(0.2)),
        seconds=120,
        settled=FROM_60,
    ),
    Scenario(
        "rate-30-at-8",
        "limit_req 30/s, burst 20, and limit_conn 8",
        limited(lambda: Rate(fixed(30), 20), at_once(8), latency=about(0.2)),
        seconds=120,
        settled=FROM_60,
    ),
    Scenario(
        "rate-strict",
        "limit_req 30/s without burst",
        limited(lambda: Rate(fixed(30), 0), latency=about(0.2)),
        seconds=120,
        settled=FROM_60,
    ),
    Scenario(
        "rate-doubles",
        "limit_req 15/s, from 60 s on 30/s, burst 20",
        limited(lambda: Rate(steps((0, 15), (60, 30)), 20), latency=about(0.2)),
        seconds=180,
        settled=((90, TO_THE_END),),
    ),
)
