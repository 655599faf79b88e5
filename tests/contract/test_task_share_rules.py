"""Who gets how much of a pool, and how soon a newcomer does, on both servers (design 04)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.contract.pool_under_clock import (
    MODEL,
    ONE,
    Pool,
    demand,
    honest_pool,
    policies,
    submission,
    task_of,
)
from tests.contract.shard_under_clock import SERVERS

GRANTS = 1000
TOLERANCE = 0.02
FLOODING = 50


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", submission=20)
        yield pool


def flood(pool: Pool, group: str, tasks: int, weight: float = 1, asks: str = ONE) -> None:
    """Submit many tasks of a group, called by it and a number, in one call."""
    names = (f"{group}-{i}" for i in range(tasks))
    pool.ask_all("m", *(submission(name, group, asks, weight=weight) for name in names))


def work(pool: Pool, grants: int) -> list[str]:
    """Run tasks, as many at once as the pool allows, the eldest ending first; return whose."""
    running: list[str] = []
    granted: list[str] = []
    while len(granted) < grants:
        ended, running = running[:3], running[3:]
        finishes = [("finish", lease, b"", "", "") for lease in ended]
        *_released, admitted = pool.ask_all("m", *finishes, demand(99))
        leases = [lease[0] for lease in admitted[1]]
        running += leases
        granted += leases
        assert running
    pool.ask_all("m", *(("finish", lease, b"", "", "") for lease in running))
    return [task_of(lease).split("-")[0] for lease in granted[:grants]]


@policies
@pytest.mark.parametrize("weights", [(5, 3, 2), (1, 0.25, 2.5), (1, 1, 1, 1, 1, 1, 1)])
def test_groups_get_the_share_of_their_weight(
    pool: Pool, policy: str, weights: tuple[float, ...]
) -> None:
    pool.configure(policy)
    for i, weight in enumerate(weights):
        flood(pool, f"g{i}", round(1.1 * GRANTS * weight / sum(weights)), weight)
    served = Counter(work(pool, GRANTS))

    for i, weight in enumerate(weights):
        expected = GRANTS * weight / sum(weights)
        assert served[f"g{i}"] == pytest.approx(expected, rel=TOLERANCE)


@policies
def test_groups_that_share_one_resource_get_their_share_of_it(pool: Pool, policy: str) -> None:
    """Beside a third that asks for something else."""
    pool.configure(policy)
    for group, weight, tasks, asks in (("a", 3, 260, MODEL), ("b", 1, 90, MODEL), ("c", 1, 5, ONE)):
        flood(pool, group, tasks, weight, asks)
    served = Counter(work(pool, 325))

    assert served["c"] == 5
    assert served["a"] == pytest.approx(240, rel=TOLERANCE)


@policies
def test_latecomer_among_fifty_flooding_groups_starts_within_one_round(
    pool: Pool, policy: str
) -> None:
    pool.configure(policy)
    for i in range(FLOODING):
        flood(pool, f"g{i}", 6)
    work(pool, 3 * FLOODING)
    flood(pool, "late", 1)

    assert "late" in work(pool, FLOODING + 1)


@policies
def test_newcomer_gets_no_more_for_having_been_away(pool: Pool, policy: str) -> None:
    pool.configure(policy)
    flood(pool, "a", 120)
    work(pool, 60)
    flood(pool, "b", 60)
    served = Counter(work(pool, 40))

    assert abs(served["a"] - served["b"]) <= 1
