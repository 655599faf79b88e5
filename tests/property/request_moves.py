"""What may happen to a request shard in a step of the state machine, and how often."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from forebay.contracts.identity import RequestDomain
from forebay.contracts.outcomes import RateLimitScope
from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.quotas import QuotaBudget, QuotaReading
from forebay.contracts.settings import (
    RequestAdmissionConfig,
    RequestAdmissionTuningConfig,
    RequestQuotas,
)
from tests.property.request_queue_model import HOUR_US
from tests.support_scripts import (
    CHAT,
    EMBEDDING,
    GENERATION,
    START_US,
    Acquire,
    Cancel,
    Learn,
    Register,
    Release,
    State,
)

MOSTLY = st.sampled_from([True, True, True, False])
INDEX = st.integers(0, 11)
TTLS = st.sampled_from([15.0, 60.0])
GROUPS = st.sampled_from(["a", "b", "c"])
WEIGHTS = st.sampled_from([1.0, 1.0, 1.0, 2.0, 3.0, 0.1, 1000.0])
DOMAINS = st.sampled_from([CHAT, CHAT, CHAT, EMBEDDING, EMBEDDING, RequestDomain.IMAGE])
WAITS = st.sampled_from([None, None, None, None, "try", 0, 0.5, 3.0])
COSTS = st.sampled_from([0, 0, 1, 3, 7, 7, 20, 45])
ASKS = st.builds(Acquire, st.just(""), DOMAINS, GROUPS, WEIGHTS, WAITS, COSTS)
HINTS = st.sampled_from([None, None, 0.5, 3.0, 1e4, 0.0, -1.0, math.nan, math.inf])
ENDS = [kind for kind in Outcome if kind is not Outcome.MEMBER_LOST]
OUTCOMES = st.sampled_from([Outcome.SUCCESS] * 12 + [Outcome.RATE_LIMITED] * 4 + ENDS)
SCOPES = st.sampled_from([None, None, None, RateLimitScope.QUOTA])
USED = st.sampled_from([None, None, 0, 0, 1, 5, 7, 30, 200])
LIMITS = {
    QuotaBudget.REQUESTS_PER_MINUTE: [60, 97, 7, 2],
    QuotaBudget.TOKENS_PER_MINUTE: [600, 311, 40, 7],
    QuotaBudget.REQUESTS_PER_DAY: [86_400, 100_003, 11],
    QuotaBudget.TOKENS_PER_DAY: [864_000, 1_000_003, 50, 10**12],
}
"""About one request and ten tokens a second, so that they bind; and some that hardly refill."""
BURSTS = {budget: [3, 2, 5, None, 1] for budget in LIMITS} | {
    QuotaBudget.TOKENS_PER_MINUTE: [20, 45, 8, None],
    QuotaBudget.TOKENS_PER_DAY: [25, 60, 7, None],
}


def _quotas(bounds: dict[QuotaBudget, tuple[int, int | None]]) -> RequestQuotas:
    limits: dict[str, Any] = {budget.value: limit for budget, (limit, _burst) in bounds.items()}
    bursts = {budget: burst for budget, (_limit, burst) in bounds.items() if burst is not None}
    return RequestQuotas(bursts=bursts, **limits)


def _bounds(*budgets: QuotaBudget) -> st.SearchStrategy[RequestQuotas]:
    each = {
        budget: st.tuples(st.sampled_from(LIMITS[budget]), st.sampled_from(BURSTS[budget]))
        for budget in budgets
    }
    return st.fixed_dictionaries({}, optional=each).map(_quotas)


# Requests hold up all alike; who passes whom is of interest where only tokens are bounded.
QUOTAS = st.one_of(
    st.none(),
    st.just(RequestQuotas()),
    _bounds(*QuotaBudget),
    _bounds(QuotaBudget.TOKENS_PER_MINUTE, QuotaBudget.TOKENS_PER_DAY),
)
READINGS = st.sampled_from(QuotaBudget).flatmap(
    lambda budget: st.builds(
        QuotaReading,
        budget=st.just(budget),
        limit=st.sampled_from([None, None, 30, *LIMITS[budget], 10**12]),
        remaining=st.sampled_from([None, 0, 1, 2, 4, 10, 18, 1000]),
    )
)
OF_BOTH = {
    "cooldown_seconds": st.sampled_from([2.0, 0.5, 0.0]),
    "startup_ramp_seconds": st.sampled_from([0.0, 0.0, 10.0, 0.0, 3.0]),
}
AIMD = st.builds(
    RequestAdmissionTuningConfig,
    rule=st.just("aimd"),
    multiplicative_decrease_factor=st.sampled_from([0.75, 0.5, 0.01]),
    additive_increase_step=st.sampled_from([1, 3]),
    successes_until_increase=st.sampled_from([1, 2, 3]),
    **OF_BOTH,
)
STEADY = st.builds(
    RequestAdmissionTuningConfig,
    rule=st.just("steady"),
    successes_until_try=st.sampled_from([1, 2, 3, 5, 150]),
    round_successes=st.sampled_from([1, 2, 3, 24]),
    **OF_BOTH,
)
CONFIGS = st.builds(
    RequestAdmissionConfig,
    tuning=st.one_of(AIMD, STEADY, STEADY),
    initial_limits=st.dictionaries(DOMAINS, st.sampled_from([1, 2, 4, 20]), max_size=1),
    max_limit_clamps=st.dictionaries(DOMAINS, st.sampled_from([1, 3, 20]), max_size=1),
    max_cooldown_seconds=st.sampled_from([300.0, 300.0, 1.0]),
    max_hold_seconds=st.sampled_from([None, None, 4.0]),
    quotas=QUOTAS,
    fair_by=st.sampled_from(["requests", "requests", "tokens"]),
)
REGISTRATIONS = st.builds(
    Register,
    st.sampled_from(["alias", "alias", "other"]),
    st.sampled_from([5, 8, 4, 12, 3, 2, 1]),
    CONFIGS,
)
STEPS_US = st.sampled_from([1, 1000, 400_000, 1_000_000, 2_000_000, 4_000_000])
OPERATIONS = ["reset_window", "reset_cooldown", "override_cap", "override_cap", "settle"]
OVERRIDES = st.sampled_from(["", "", "0", "1", "2", "4", "20"])
KNOWN = st.builds("?{}".format, st.integers(0, 30))
"""An attempt that is known already; which one is settled when the step is taken."""
OPS = st.one_of(
    ASKS,
    st.builds(Acquire, KNOWN, DOMAINS, GROUPS, WEIGHTS, WAITS, COSTS),
    st.builds(
        Release, KNOWN, OUTCOMES, HINTS, st.sampled_from([GENERATION, "older"]), USED, SCOPES
    ),
    st.builds(Learn, READINGS, st.sampled_from([0, START_US, START_US + 1, 2 * START_US])),
    st.builds(Cancel, KNOWN),
    st.builds(State, KNOWN),
)
MOVES: dict[str, tuple[int, st.SearchStrategy[tuple[Any, ...]]]] = {
    "ask": (9, st.tuples(INDEX, st.lists(ASKS, min_size=1, max_size=6))),
    "release": (
        7,
        st.tuples(st.lists(INDEX, min_size=1, max_size=3), OUTCOMES, HINTS, USED, SCOPES),
    ),
    "a_mixed_batch": (5, st.tuples(INDEX, st.lists(OPS, min_size=1, max_size=5))),
    "a_burst_of_rate_limits": (3, st.tuples(INDEX, HINTS, SCOPES)),
    "a_run_of_successes": (2, st.tuples(INDEX, st.integers(1, 6), DOMAINS)),
    "an_earlier_batch_comes_again": (1, st.tuples(INDEX, INDEX)),
    "time_passes": (4, st.tuples(STEPS_US, MOSTLY, TTLS)),
    "time_passes_to_an_instant_that_matters": (
        4,
        st.tuples(INDEX, st.sampled_from([-1, 0, 1]), INDEX),
    ),
    "time_passes_to_the_next_wake": (3, st.tuples(st.sampled_from([-1, 0, 0, 1]), INDEX)),
    "headers_arrive": (
        2,
        st.tuples(
            INDEX,
            st.lists(READINGS, min_size=1, max_size=3),
            st.sampled_from([0, 0, 1, 700_000, 5_000_000, -2_000_000]),
        ),
    ),
    "traffic_while_time_passes": (
        3,
        st.tuples(st.sampled_from([300_000, 800_000, 2_500_000]), st.integers(1, 6), DOMAINS),
    ),
    "minutes_of_a_quota": (
        2,
        st.tuples(
            st.sampled_from([1, 5, 6]),
            st.sampled_from([8, 8, 8, 9, 11, 7]),
            st.sampled_from([0, 0, 0, 1_000_000, 5_000_001]),
            DOMAINS,
        ),
    ),
    "the_servers_clock_steps_back": (1, st.tuples(st.sampled_from([1, 10**6, HOUR_US]), INDEX)),
    "an_hour_passes": (1, st.tuples(st.sampled_from([HOUR_US - 1, HOUR_US, HOUR_US + 1]), INDEX)),
    "join": (2, st.tuples(TTLS, st.one_of(st.none(), REGISTRATIONS))),
    "connect_again": (2, st.tuples(INDEX, TTLS)),
    "stop_listening": (2, st.tuples(INDEX, MOSTLY)),
    "administer": (3, st.tuples(st.sampled_from(OPERATIONS), DOMAINS, OVERRIDES)),
    "register": (2, st.tuples(INDEX, REGISTRATIONS)),
    "give_up": (2, st.tuples(INDEX)),
    "leave": (1, st.tuples(INDEX, st.lists(ASKS, max_size=1))),
}
WEIGHTED = [name for name, (weight, _arguments) in MOVES.items() for _ in range(weight)]
