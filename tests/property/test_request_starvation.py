"""Design 03, *Order*: nobody starves, on both servers, whatever came before.

While the k-th waiter of a group of weight w may go, each other group of weight u is granted at most
1 + floor(k*u/w) times before it. This is checked from grants and releases alone, without the
reference model: at each grant the waiters that it passed are those that might have gone instead.

A waiter that lacks only quota keeps what it lacks (ADR 0007), so where all draw on one budget of
tokens the same bound holds for those that wait for it, however large they and small the others are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from forebay.contracts.identity import RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.quotas import QuotaBudget
from forebay.contracts.settings import (
    RequestAdmissionConfig,
    RequestAdmissionTuningConfig,
    RequestQuotas,
)
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.property.modes import LONG, Progress
from tests.support_scripts import (
    CHAT,
    FRAGMENTS,
    Acquire,
    Cancel,
    Op,
    Release,
    ScriptedShard,
    granted,
)
from tests.support_state import audited

GROUPS: Final = "tuvw"
DOMAINS: Final = (CHAT, RequestDomain.EMBEDDING, RequestDomain.IMAGE)
WEIGHTS = st.one_of(st.integers(1, 10).map(float), st.sampled_from([0.001, 0.25, 0.5, 2.5, 1000.0]))
ENDS = st.sampled_from([Outcome.SUCCESS] * 16 + [Outcome.PROVIDER_FAILURE, Outcome.RATE_LIMITED])
INDEX = st.integers(0, 63)
BURST: Final = 20
NO_QUOTAS: Final = RequestQuotas()
TEN_TOKENS_A_SECOND: Final = RequestQuotas(
    tokens_per_minute=600, bursts={QuotaBudget.TOKENS_PER_MINUTE: BURST}
)
COSTS = st.sampled_from([1, 1, 2, 3, BURST])
ASKS = st.tuples(
    st.just("ask"),
    st.sampled_from(GROUPS),
    st.tuples(st.sampled_from([*DOMAINS, CHAT]), COSTS),
)
PASS_TIME = st.tuples(st.just("pass_time"), st.sampled_from([400, 1000, 2000]), st.none())
MOVES = st.one_of(
    ASKS,
    st.tuples(st.just("come_back"), INDEX, ENDS),
    st.tuples(st.just("keep_coming_back"), INDEX, st.integers(2, 9)),
    st.tuples(st.just("release"), INDEX, ENDS),
    st.tuples(st.just("cancel"), INDEX, st.none()),
    PASS_TIME,
)


@dataclass(slots=True)
class Waiter:
    """One who waits, and what happened since it might first have gone at every grant.

    Attributes:
        cost: what it draws from a quota of tokens, where there is one.
        k: its place among its group's waiters when that began; 0 before it began.
        passed_by: grants to each other group since.
    """

    group: str
    domain: RequestDomain
    cost: int
    k: int = 0
    passed_by: Counter[str] = field(default_factory=Counter)


class Watch:
    """A shard that is driven one operation a call, so that the order of grants is known."""

    def __init__(
        self,
        shard: ScriptedShard,
        cap: int,
        clamps: dict[RequestDomain, int],
        weights: dict[str, float],
        quotas: RequestQuotas,
    ) -> None:
        self.shard = shard
        self.cap = cap
        self.weights = weights
        self.asked = 0
        self.waiters: dict[str, Waiter] = {}
        self.leases: dict[str, Waiter] = {}
        self.contests = 0
        self.contests_of_large_ones = 0
        tuning = RequestAdmissionTuningConfig(successes_until_increase=2, cooldown_seconds=1.0)
        shard.join("m", 3600.0)
        config = RequestAdmissionConfig(tuning=tuning, max_limit_clamps=clamps, quotas=quotas)
        shard.open(cap, "m", config=config)
        shard.heartbeat("m", 3600.0)

    def ask(self, group: str, domain: RequestDomain, cost: int) -> None:
        name = f"{group}{self.asked}"
        self.asked += 1
        asker = Waiter(group, domain, cost)
        result = self.call(Acquire(name, domain, group, self.weights[group], cost=cost))
        if result[0] == "granted":
            self.granted(name, asker)
        else:
            self.waiters[name] = asker

    def release(self, pick: int, outcome: Outcome, *, is_back: bool) -> None:
        """End a lease; a group that is back asks before it does: the harm the bound prevents."""
        if not self.leases:
            return
        name = list(self.leases)[pick % len(self.leases)]
        lease = self.leases[name]
        if is_back:
            self.ask(lease.group, lease.domain, 1)
        self.end(Release(name, outcome), name)

    def end(self, op: Release | Cancel, name: str) -> None:
        self.leases.pop(name, None)
        self.waiters.pop(name, None)
        self.call(op)

    def call(self, *op: Op) -> list[Any]:
        reply = self.shard.batch("m", *op)
        self.windows = audited(self.shard.client, self.shard.keys)["windows"]
        self.now_us = reply.now_us
        for name in granted(reply.notices):
            self.granted(name, self.waiters.pop(name))
        return reply.results[0] if reply.results else []

    def may_go(self, domain: RequestDomain) -> bool:
        """Whether it is open; quotas say only when its next goes, not who."""
        window = self.windows[domain.value]
        busy = sum(lease.domain is domain for lease in self.leases.values())
        limit = min(window["current_limit"], window["effective_max"])
        return (
            len(self.leases) < self.cap
            and busy < limit
            and window["blocked_until_us"] <= self.now_us
        )

    def granted(self, name: str, taker: Waiter) -> None:
        """Count a grant against all who might have gone instead; the rest begin anew."""
        place: Counter[str] = Counter()
        for waiter in self.waiters.values():
            place[waiter.group] += 1
            if not self.may_go(waiter.domain):
                waiter.k, waiter.passed_by = 0, Counter()
                continue
            waiter.k = waiter.k or place[waiter.group]
            if waiter.group != taker.group:
                waiter.passed_by[taker.group] += 1
                self.check_bound(waiter, taker.group)
                self.contests += 1
                self.contests_of_large_ones += waiter.cost == BURST
        self.leases[name] = taker

    def check_bound(self, waiter: Waiter, group: str) -> None:
        count, ratio = waiter.passed_by[group], self.weights[group] / self.weights[waiter.group]
        # tags are sums of 1/weight in floating point: a tie may fall either way
        most = 1 + math.floor(waiter.k * ratio + 1e-9)
        assert count <= most, f"{group} went {count} times before {waiter}, weights {self.weights}"


def explore(
    client: redis.Redis,
    examples: int,
    fragments: dict[str, str] = FRAGMENTS,
    quotas: RequestQuotas = NO_QUOTAS,
) -> int:
    """Run histories; return how often a waiter, with quotas a large one, was passed by others."""
    contests = 0
    moves_of = MOVES if quotas is NO_QUOTAS else st.one_of(MOVES, PASS_TIME)
    progress = Progress("starvation", examples)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=fragments is not FRAGMENTS or not LONG,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        cap=st.integers(1, 3),
        clamps=st.dictionaries(st.sampled_from(DOMAINS), st.integers(1, 2), max_size=2),
        weights=st.fixed_dictionaries(dict.fromkeys(GROUPS, WEIGHTS)),
        moves=st.builds(
            list.__add__,
            st.lists(ASKS, min_size=8, max_size=24),
            st.lists(moves_of, min_size=20, max_size=80),
        ),
    )
    def history(
        cap: int,
        clamps: dict[RequestDomain, int],
        weights: dict[str, float],
        moves: list[tuple[str, Any, Any]],
    ) -> None:
        nonlocal contests
        progress.example()
        client.flushall()
        shard = ScriptedShard(client, fragments)
        watch = Watch(shard, cap, clamps, weights, quotas)
        for move in moves:
            take(watch, *move)
        shard.close()
        contests += watch.contests if quotas is NO_QUOTAS else watch.contests_of_large_ones

    history()
    return contests


def take(watch: Watch, move: str, what: Any, how: Any) -> None:
    match move:
        case "ask":
            watch.ask(what, *how)
        case "release" | "come_back":
            watch.release(what, how, is_back=move == "come_back")
        case "keep_coming_back":
            for turn in range(how):
                watch.release(what + turn, Outcome.SUCCESS, is_back=True)
        case "cancel" if watch.waiters:
            name = list(watch.waiters)[what % len(watch.waiters)]
            watch.end(Cancel(name), name)
        case "pass_time":
            watch.shard.advance(what / 1000)
            watch.call()


@pytest.fixture(params=["fakeredis", "server"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    if request.param == "fakeredis":
        with fakeredis.FakeRedis(version=(7,)) as client:
            yield client
    else:
        with open_sync(parse_url(request.getfixturevalue("redis_url"))) as client:
            yield client


def test_no_waiter_is_passed_more_often_than_its_weight_allows(client: redis.Redis) -> None:
    few = 25 if isinstance(client, fakeredis.FakeRedis) else 60
    assert explore(client, examples=20 * few if LONG else few) > 10 * few


def test_small_ones_pass_one_as_large_as_the_burst_no_more_often(client: redis.Redis) -> None:
    few = 25 if isinstance(client, fakeredis.FakeRedis) else 45
    passed = explore(client, 20 * few if LONG else few, quotas=TEN_TOKENS_A_SECOND)
    assert passed > 2 * few


BROKEN: Final = {
    "turns that cost the same whatever the weight": (
        "lib/shard/groups",
        "meta.virtual_time + cost / g.weight",
        "meta.virtual_time + cost",
    ),
    "turns that cost nothing": (
        "lib/shard/groups",
        "meta.virtual_time + cost / g.weight",
        "meta.virtual_time",
    ),
    "a group that comes back without its tag": (
        "lib/shard/groups",
        "g.tag or meta.virtual_time\n  g.place",
        "meta.virtual_time\n  g.place",
    ),
    "virtual time that follows whoever goes": (
        "lib/shard/groups",
        "if g.tag and g.tag > meta.virtual_time then",
        "if g.tag then",
    ),
    "time that stands still": (
        "lib/shard/groups",
        "meta.virtual_time = g.tag",
        "meta.virtual_time = meta.virtual_time",
    ),
    "the largest tag first": ("lib/requests/queue", "a.tag < b.tag", "a.tag > b.tag"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_queue_with_this_fault_breaks_the_bound(redis_url: str, fault: str) -> None:
    path, right, wrong = BROKEN[fault]
    source = (files("forebay.lua") / f"{path}.lua").read_text()
    assert right in source
    with open_sync(parse_url(redis_url)) as client, pytest.raises(AssertionError, match="went"):
        explore(client, 400, FRAGMENTS | {path: source.replace(right, wrong)})


def test_a_queue_that_keeps_no_quota_for_its_next_breaks_the_bound(redis_url: str) -> None:
    path, right, wrong = "lib/requests/queue", "reserved[number] then", "false then"
    source = (files("forebay.lua") / f"{path}.lua").read_text()
    assert right in source
    broken = FRAGMENTS | {path: source.replace(right, wrong)}
    with open_sync(parse_url(redis_url)) as client, pytest.raises(AssertionError, match="went"):
        explore(client, 400, broken, TEN_TOKENS_A_SECOND)
