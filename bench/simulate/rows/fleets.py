"""Fleets and demands: how much is asked, by whom, in which batches, and who dies."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bench.simulate.callers import Callers
from bench.simulate.rows.making import (
    TO_THE_END,
    at_once,
    constant,
    fleet,
    limited,
    outages,
)
from bench.simulate.rows.moves import AFTER_STEPS, STEPS
from bench.simulate.scenario import FLOOD, Fleet, Scenario
from forebay.contracts.identity import RequestDomain

AT_24: Final = limited(at_once(24))
BACKING_OFF: Final = replace(FLOOD, backs_off=True)
CHAT: Final = Callers(count=32, tenant="chat")
EMBEDDING: Final = Callers(count=32, tenant="embedding", domain=RequestDomain.EMBEDDING)
FEW_PROCESSES: Final = Fleet(callers=(Callers(count=1024),), cap=512)
"""Releases of 256 callers each, so that they come in full batches."""

ROWS: Final = (
    Scenario("demand-equal", "24 at once, 24 callers", AT_24, fleets=(fleet(Callers(count=24)),)),
    Scenario(
        "demand-one-more", "24 at once, 25 callers", AT_24, fleets=(fleet(Callers(count=25)),)
    ),
    Scenario(
        "too-large",
        "24 at once, a tenant asks twice a second for more than can ever fit",
        AT_24,
        fleets=(fleet(FLOOD, Callers(per_second=2, tenant="too large", is_hopeless=True)),),
    ),
    Scenario("demand-below", "24 at once, 12 callers", AT_24, fleets=(fleet(Callers(count=12)),)),
    Scenario(
        "demand-0.9",
        "24 at once, 43 calls begin a second: 0.9 of it",
        AT_24,
        fleets=(fleet(Callers(per_second=43)),),
    ),
    Scenario(
        "demand-1.1",
        "24 at once, 53 calls begin a second: 1.1 of it",
        AT_24,
        fleets=(fleet(Callers(per_second=53)),),
    ),
    Scenario(
        "sdk-back-off",
        "24 at once, refused callers sleep as the OpenAI SDK does",
        AT_24,
        fleets=(fleet(BACKING_OFF),),
    ),
    Scenario(
        "sdk-back-off-equal",
        "24 at once, 25 such callers",
        AT_24,
        fleets=(fleet(replace(BACKING_OFF, count=25)),),
    ),
    Scenario(
        "sdk-back-off-steps",
        "12, 24, 12 at once, such callers",
        limited(STEPS),
        seconds=120,
        settled=AFTER_STEPS,
        fleets=(fleet(BACKING_OFF),),
    ),
    Scenario(
        "batches",
        "200 at once, exactly 0.5 s: 64 releases a batch",
        limited(at_once(200), latency=constant(0.5)),
        fleets=(FEW_PROCESSES,),
    ),
    Scenario(
        "grants-64",
        "256 at once, refused for 4 s: more than 64 can be granted in a call",
        limited(outages((40, 44)), at_once(256), latency=constant(0.5)),
        seconds=120,
        settled=((60, TO_THE_END),),
        fleets=(replace(FEW_PROCESSES, config={"initial_limits": {RequestDomain.CHAT: 256}}),),
    ),
    Scenario(
        "dead-members",
        "24 at once, a process of four is killed at 40, 60 and 80 s",
        AT_24,
        seconds=120,
        kills=((40, 0), (60, 1), (80, 2)),
    ),
    Scenario(
        "domains",
        "24 at once for chat and embedding together, cap 64",
        AT_24,
        fleets=(fleet(CHAT, EMBEDDING),),
    ),
    Scenario(
        "domains-cap",
        "the same, cap 16: the cap holds both back",
        AT_24,
        fleets=(fleet(CHAT, EMBEDDING, cap=16),),
    ),
    Scenario(
        "domains-cap-equal",
        "the same, cap 24: the cap is the limit",
        AT_24,
        fleets=(fleet(CHAT, EMBEDDING, cap=24),),
    ),
    Scenario(
        "tenants",
        "8 at once, tenants of weight 3 and 1 flood",
        limited(at_once(8)),
        fleets=(
            fleet(Callers(count=32, tenant="three", weight=3), Callers(count=32, tenant="one")),
        ),
    ),
    Scenario(
        "two-fleets",
        "24 at once, two fleets with a server each, the second 30 s later",
        AT_24,
        seconds=330,
        settled=((90, TO_THE_END),),
        fleets=(fleet(FLOOD), fleet(FLOOD, begins=30)),
    ),
    Scenario(
        "two-fleets-small",
        "the same, the second has 6 callers",
        AT_24,
        seconds=330,
        settled=((90, TO_THE_END),),
        fleets=(fleet(FLOOD), fleet(Callers(count=6), begins=30)),
    ),
    Scenario(
        "thousands",
        "400 at once, cap 1000, 4000 callers in 40 processes",
        limited(at_once(400)),
        seconds=40,
        settled=((20, TO_THE_END),),
        fleets=(Fleet(callers=(Callers(count=4000),), members=40, cap=1000),),
    ),
)
