"""What may happen to a task pool in a step of the state machine, and how often."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from forebay.contracts.identity import TaskGroupKind
from forebay.contracts.task_policies import BoundedBorrowTaskAdmissionPolicyConfig, DebtCeiling

INDEX = st.integers(0, 11)
MEMBERS = st.integers(0, 3)
GROUPS = st.sampled_from(["a", "b", "c", "d", "e"])
WEIGHTS = st.sampled_from([1.0, 1.0, 2.0, 3.0, 0.1, 1000.0])
GROUP_LIMITS = st.sampled_from([None, None, 1, 2, 3])
RESOURCES = {"submission": [12, 6, 3, 30], "gpu": [4, 2, 6, 0], "request:p/m": [3, 1, 8]}
ASKS = st.sampled_from(
    [
        {"submission": 1},
        {"submission": 1},
        {"submission": 1, "gpu": 1},
        {"submission": 1, "gpu": 1},
        {"submission": 1, "gpu": 4},
        {"submission": 1, "request:p/m": 1},
        {"submission": 2, "gpu": 2, "request:p/m": 1},
        {"submission": 7},
    ]
)
DELAYS_US = st.sampled_from([0, 0, 0, 0, 700_000, 3_000_000, -2_500_600])
FUNCTIONS = st.sampled_from(["", "", "", "f", "f", "g"])
SUBMITS = st.tuples(GROUPS, WEIGHTS, GROUP_LIMITS, ASKS, DELAYS_US, FUNCTIONS)
SLOTS = st.sampled_from([1, 1, 2, 3, 5, 0])
MISSED = st.sampled_from([0, 0, 0, 1, 2, -1])
HINTS = st.sampled_from([(), (), (), ("request:p/m",), ("gpu",)])
STEPS_US = st.sampled_from([1, 1000, 400_000, 1_000_000, 2_500_000, 4_999_999, 5_000_000])
TTLS_US = st.sampled_from([15_000_000, 60_000_000])
LIMITS = st.sampled_from(sorted(RESOURCES)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(RESOURCES[name]))
)
CEILINGS = st.lists(
    st.builds(
        DebtCeiling,
        kind=st.just(TaskGroupKind.LOCAL),
        identity=st.tuples(GROUPS),
        resource=st.sampled_from(sorted(RESOURCES)),
        units=st.integers(0, 3),
    ),
    max_size=2,
    unique_by=lambda ceiling: (ceiling.identity, ceiling.resource),
).map(tuple)
BORROWS = st.builds(
    BoundedBorrowTaskAdmissionPolicyConfig,
    share_rounding=st.sampled_from(["up", "down"]),
    ceilings=CEILINGS,
    default_ceiling=st.sampled_from([None, None, 0, 1, 3]),
    ceiling_reserve=st.sampled_from([0, 0, 1, 2]),
)
RESERVES_US = st.sampled_from([5_000_000, 5_000_000, 1_000_000, 1])
MOVES: dict[str, tuple[int, st.SearchStrategy[tuple[Any, ...]]]] = {
    "submit": (10, st.tuples(MEMBERS, st.lists(SUBMITS, min_size=1, max_size=5))),
    "submit_again": (1, st.tuples(MEMBERS, INDEX)),
    "admit": (9, st.tuples(MEMBERS, SLOTS, HINTS, MISSED)),
    "finish": (6, st.tuples(st.lists(INDEX, min_size=1, max_size=3))),
    "finish_and_admit": (4, st.tuples(INDEX, SLOTS)),
    "finish_of_another": (1, st.tuples(MEMBERS, INDEX)),
    "retry": (2, st.tuples(INDEX, DELAYS_US, st.sampled_from([0, 0, 1, 2]))),
    "discard": (2, st.tuples(MEMBERS, INDEX)),
    "payload_expires": (1, st.tuples(INDEX)),
    "expire": (1, st.tuples(MEMBERS, INDEX)),
    "set_limit": (3, st.tuples(MEMBERS, LIMITS)),
    "configure": (
        2,
        st.tuples(
            MEMBERS,
            st.one_of(st.none(), BORROWS, BORROWS),
            RESERVES_US,
            st.sampled_from([3, 3, 2, 1]),
        ),
    ),
    "serve": (2, st.tuples(MEMBERS, st.sets(st.sampled_from(["f", "g"]), min_size=1))),
    "fail_lost": (1, st.tuples(MEMBERS, INDEX)),
    "die": (1, st.tuples(MEMBERS)),
    "set_state": (1, st.tuples(MEMBERS, st.sampled_from(["paused", "", "draining", ""]))),
    "time_passes": (5, st.tuples(STEPS_US, st.booleans(), TTLS_US, MEMBERS)),
    "an_hour_passes": (1, st.tuples(st.sampled_from([-1, 0, 1]), MEMBERS)),
    "the_servers_clock_steps_back": (1, st.tuples(STEPS_US, MEMBERS)),
    "join": (2, st.tuples(TTLS_US)),
    "connect_again": (2, st.tuples(INDEX, TTLS_US)),
    "leave": (1, st.tuples(MEMBERS)),
    "stop_listening": (2, st.tuples(MEMBERS, st.sampled_from([True, True, False]))),
    "the_last_batch_comes_again": (1, st.tuples(MEMBERS)),
}
WEIGHTED = [name for name, (weight, _arguments) in MOVES.items() for _ in range(weight)]
