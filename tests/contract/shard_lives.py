"""Whole lives of shards by a seed: what they are asked, answer, tell and store.

The clock stands where a step's number puts it, so that shards can take turns under one clock.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import redis

from forebay.contracts.identity import ProviderModelKey, RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.contracts.quotas import QuotaBudget, QuotaReading
from forebay.contracts.settings import RequestAdmissionConfig
from forebay.coordinator.keys import ShardKeys
from tests.contract.pool_under_clock import GPU, MODEL, ONE, Pool, demand, submission
from tests.contract.run_plans import plan, values_of
from tests.contract.shard_under_clock import CLOCK_KEY
from tests.contract.shard_under_clock import START_US as POOL_START_US
from tests.support_scripts import (
    CHAT,
    EMBEDDING,
    FRAGMENTS,
    START_US,
    Acquire,
    Cancel,
    Learn,
    Op,
    Refused,
    Register,
    Release,
    ScriptedShard,
    State,
)

Life = Callable[[redis.Redis], Iterator[Any]]
"""Yields what each step of a shard was answered and what it told, and in the end what is stored."""

STEPS: Final = 400
STEP_SECONDS: Final = 0.4


def stored(client: redis.Redis, keys: ShardKeys) -> dict[str, Any]:
    """Return all that is stored of a shard; an event's id is the server's own time."""
    read: dict[bytes, Callable[[str], Any]] = {
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": lambda key: [fields for _id, fields in client.xrange(key)],
    }
    kinds = [kind for kind in keys.kinds if client.exists(keys[kind])]
    return {kind: read[client.type(keys[kind])](keys[kind]) for kind in kinds}


# -- a request shard's life


class RequestMember:
    """One of a shard's members, which does what a seed says."""

    def __init__(self, shard: ScriptedShard, draw: random.Random, cap: int) -> None:
        self._shard = shard
        self._draw = draw
        self._cap = cap
        self._names = (f"a{number}" for number in itertools.count())
        self._known = ["nobody"]
        self._leases = ["nobody"]

    def ask(self) -> Op:
        name = next(self._names)
        self._known = [*self._known[-12:], name]
        return Acquire(
            name,
            self._draw.choice([CHAT, CHAT, EMBEDDING, RequestDomain.IMAGE]),
            self._draw.choice(["a", "b"]),
            self._draw.choice([1.0, 3.0]),
            self._draw.choice([None, None, "try", 1.0]),
            self._draw.choice([0, 3, 12]),
        )

    def release(self) -> Op:
        outcome = self._draw.choice(
            [RequestOutcomeKind.SUCCESS] * 5
            + [RequestOutcomeKind.RATE_LIMITED, RequestOutcomeKind.PROVIDER_FAILURE]
        )
        lease = self._draw.choice(self._leases[-6:])
        return Release(lease, outcome, used=self._draw.choice([None, 5]))

    def other(self) -> Op:
        name = self._draw.choice(self._known)
        reading = QuotaReading(budget=QuotaBudget.TOKENS_PER_MINUTE, limit=300, remaining=9)
        return self._draw.choice(
            [Cancel(name), State(name), Learn(reading, START_US), Register("b", self._cap)]
        )

    def batch(self, name: str) -> bytes:
        makers = [self.ask, self.ask, self.release, self.release, self.other]
        ops = [self._draw.choice(makers)() for _ in range(self._draw.randint(1, 4))]
        reply = self._shard.batch(name, *ops)
        told = [*reply.results, *reply.notices]
        self._leases += [terms[1] for terms in told if terms[0] == "granted"]
        return reply.raw


def life_of_requests(name: str, cap: int, config: RequestAdmissionConfig, seed: int) -> Life:
    def live(client: redis.Redis) -> Iterator[Any]:
        draw = random.Random(seed)
        shard = ScriptedShard(
            client, FRAGMENTS, ProviderModelKey(provider_name="acme", model_id=name)
        )
        member = RequestMember(shard, draw, cap)
        steps: list[Callable[[], Any]] = [
            *[lambda: member.batch(draw.choice("mn"))] * 9,
            lambda: shard.batch("stranger", member.ask()).raw,  # refused: nobody knows it
            lambda: shard.call("m", 1, member.ask()).raw,  # refused: too old
            lambda: shard.run("requests/batch", shard.keys.all, ["n", 10**6, "bad", 0]),
            lambda: shard.heartbeat(draw.choice("mn"), draw.choice([0.3, 60.0])),
            lambda: [shard.join(one, 60.0) for one in "mn"],
            lambda: shard.administer(draw.choice(["settle", "reset_cooldown"]), ""),
            lambda: shard.administer("override_cap", draw.choice(["", "2"])),
            lambda: shard.run("requests/snapshot", shard.keys.all, [100]),
            lambda: shard.run("requests/look", shard.keys.all, ["show", 100]),
            lambda: shard.run("requests/audit", shard.keys.all, ["json"]),
        ]
        yield shard.open(cap, "m", "n", config=config)
        for number in range(STEPS):
            shard.set_clock(START_US + round(number * STEP_SECONDS * 1e6))
            try:
                answer = draw.choice(steps)()
            except Refused as error:
                answer = str(error)
            yield answer, shard.pushed
        yield stored(client, shard.keys)
        shard.close()

    return live


# -- a pool's life


class PoolMember:
    """A pool's members, which do what a seed says."""

    def __init__(self, pool: Pool, draw: random.Random, name: str) -> None:
        self._pool = pool
        self._draw = draw
        self._tasks = (f"{name}-t{number}" for number in itertools.count())
        self._run = f"run-{name}"
        self._known = ["nobody"]
        self._leases = ["nobody~1"]

    def submit(self) -> tuple[Any, ...]:
        name = next(self._tasks)
        self._known = [*self._known[-12:], name]
        soon_us = int(self._pool.client.get(CLOCK_KEY)) + 900_000
        return submission(
            name,
            self._draw.choice("abc"),
            self._draw.choice([ONE, ONE, GPU, MODEL]),
            weight=self._draw.choice([1, 3]),
            not_before_us=self._draw.choice(["", "", soon_us]),
        )

    def end(self) -> tuple[Any, ...]:
        lease = self._draw.choice(self._leases[-6:])
        cells = values_of(lease) if ":" in lease else []
        finish = ("finish", lease, b"", "", "", *cells)
        return self._draw.choice([finish, finish, ("retry", lease, 500_000, 0)])

    def admit(self) -> tuple[Any, ...]:
        return demand(self._draw.choice([1, 3]), self._draw.choice(["", "gpu"]))

    def other(self) -> tuple[Any, ...]:
        task = self._draw.choice(self._known)
        return self._draw.choice(
            [
                ("discard", task, b"", ""),
                ("claim", "gpu", "pool", self._draw.choice([1, 4])),
                ("set_state", self._draw.choice(["paused", "open", "open"])),
                ("run_collect", self._run),
                ("run_cancel", self._run),
                ("run_submit", self._run, plan(records=self._draw.choice([4, 6])), "{}"),
                self._policy(),
            ]
        )

    def _policy(self) -> tuple[Any, ...]:
        if self._draw.random() < 1 / 3:
            return ("configure", "", 0, "")
        rounding = self._draw.choice(["up", "down"])
        ceiling = self._draw.choice([0, 2, 9])
        return ("configure", "borrow", 0, "", "share_rounding", rounding, "ceiling", ceiling)

    def lose_a_payload(self) -> int:
        return int(self._pool.client.delete(f"arq:job:{self._draw.choice(self._known)}"))

    def batch(self) -> Any:
        makers = [self.submit, self.submit, self.admit, self.admit, self.end, self.end, self.other]
        operations = [self._draw.choice(makers)() for _ in range(self._draw.randint(1, 4))]
        results = self._pool.ask_all(self._draw.choice("mn"), *operations)
        granted = [result[1] for result in results if result[0] == "admitted"]
        self._leases += [lease[0] for leases in granted for lease in leases]
        return results, self._pool.next_wake_us, self._pool.notices, self._pool.payloads


def life_of_pool(name: str, limits: dict[str, int], seed: int) -> Life:
    def live(client: redis.Redis) -> Iterator[Any]:
        draw = random.Random(seed)
        pool = Pool(client, name)
        member = PoolMember(pool, draw, name)
        steps: list[Callable[[], Any]] = [
            *[member.batch] * 9,
            member.lose_a_payload,
            lambda: pool.ask("stranger", *member.submit()),  # refused: nobody knows it
            lambda: pool.run("tasks/batch", "m", 1, "leave", 0),  # refused: too old
            lambda: pool.run("tasks/batch", "n", 10**6, "bad", 0),
            lambda: pool.beat(draw.choice("mn"), draw.choice([300_000, 60_000_000])),
            lambda: pool.join("m", "n", ttl_us=60_000_000),
            lambda: pool.run("tasks/snapshot", 100),
            lambda: pool.run("tasks/look", "show", 100),
            lambda: pool.run("tasks/audit", "json"),
        ]
        pool.listen_to_all()
        yield pool.open("m", "n", **limits)
        yield pool.ask("m", "run_submit", f"run-{name}", plan(records=6), "{}"), pool.told()
        for number in range(STEPS):
            client.set(CLOCK_KEY, POOL_START_US + round(number * STEP_SECONDS * 1e6))
            try:
                answer = draw.choice(steps)()
            except redis.ResponseError as error:
                answer = str(error)
            yield answer, pool.told()
        yield stored(client, pool.keys)
        pool.close()

    return live
