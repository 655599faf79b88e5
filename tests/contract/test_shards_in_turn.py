"""Shards that take turns on one server: each lives as if every call were the server's first.

A server sets the functions and constants of a library once and the variables of a script in each
call (ADR 0006). What one call left behind would be found by the next, of whichever shard; so each
shard's whole life, its replies, messages and stored state, is compared with the same life where
the libraries are loaded anew for every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Final

import pytest
import redis

from forebay.contracts.quotas import QuotaBudget
from forebay.contracts.settings import (
    RequestAdmissionConfig,
    RequestAdmissionTuningConfig,
    RequestQuotas,
)
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.contract.shard_lives import Life, life_of_pool, life_of_requests
from tests.support_scripts import CHAT, EMBEDDING

SMALL: Final = RequestAdmissionConfig(
    tuning=RequestAdmissionTuningConfig(successes_until_increase=1, cooldown_seconds=1.0),
    initial_limits={CHAT: 1},
    max_hold_seconds=6.0,
    quotas=RequestQuotas(tokens_per_minute=600, bursts={QuotaBudget.TOKENS_PER_MINUTE: 20}),
    fair_by="tokens",
)
LARGE: Final = RequestAdmissionConfig(max_limit_clamps={EMBEDDING: 5})
"""Of rule `steady`, where the small one is of `aimd`."""
LIVES: Final[dict[str, Life]] = {
    "small requests": life_of_requests("small", 3, SMALL, seed=1),
    "large requests": life_of_requests("large", 40, LARGE, seed=2),
    "small pool": life_of_pool("small", {"submission": 3, "gpu": 1}, seed=3),
    "large pool": life_of_pool("large", {"submission": 50, "gpu": 4}, seed=4),
}

OVER: Final = object()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with open_sync(parse_url(redis_url)) as client:
        yield client


def forget_libraries(client: redis.Redis) -> None:
    """Let the server set all that a library sets once again; the next call loads its library."""
    client.function_flush()


def steps_alone(client: redis.Redis, name: str) -> list[Any]:
    """Let a shard live alone and every step find its library new; return what each step gave."""
    client.flushall()
    steps = []
    for step in LIVES[name](client):
        steps.append(step)
        forget_libraries(client)
    return steps


def steps_in_turn(client: redis.Redis) -> dict[str, list[Any]]:
    """Let all live on one server, a step of each in turn; return what each step gave."""
    client.flushall()
    forget_libraries(client)
    steps: dict[str, list[Any]] = {name: [] for name in LIVES}
    for found in zip_longest(*(life(client) for life in LIVES.values()), fillvalue=OVER):
        for name, step in zip(LIVES, found, strict=True):
            if step is not OVER:
                steps[name].append(step)
    return steps


def test_a_call_finds_nothing_of_the_one_before_on_whichever_shard(client: redis.Redis) -> None:
    found = steps_in_turn(client)
    for name in LIVES:
        expected = steps_alone(client, name)
        for number, (new, used) in enumerate(zip(expected, found[name], strict=True)):
            assert used == new, f"step {number} of {name}"
