"""What a call keeps for the next one never outlives its truth (ADR 0006)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
import redis

from forebay.contracts.identity import ProviderModelKey, RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.support_records import add_to_record, read_record, read_window
from tests.support_scripts import (
    FRAGMENTS,
    GENERATION,
    Acquire,
    Refused,
    Release,
    ScriptedShard,
)
from tests.support_state import audited

PARSE = "    record = fields and RECORDS.parse(text, fields) or RECORDS.parse_named(text)"
COUNTED = f"{PARSE} redis.call('INCR', 'parsed')"
"""A test's way to see whether a record was parsed: the key counts each time."""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with open_sync(parse_url(redis_url)) as client:
        yield client


@pytest.fixture
def shard(client: redis.Redis) -> Iterator[ScriptedShard]:
    source = (files("forebay.lua") / "lib/shard/records.lua").read_text()
    assert PARSE in source
    shard = ScriptedShard(
        client, {**FRAGMENTS, "lib/shard/records": source.replace(PARSE, COUNTED)}
    )
    yield shard
    shard.close()


def parsed_by(shard: ScriptedShard, *ops: Any) -> int:
    before = int(shard.client.get("parsed") or 0)
    shard.batch("m", *ops)
    return int(shard.client.get("parsed") or 0) - before


def test_next_call_of_a_shard_parses_nothing(shard: ScriptedShard) -> None:
    shard.open(4)
    shard.batch("m", Acquire("a"))
    assert parsed_by(shard, Acquire("b")) == 0
    assert parsed_by(shard, Release("a")) == 0
    assert audited(shard.client, shard.keys)["in_flight"] == 1


def test_call_after_a_join_or_a_heartbeat_knows_their_time(shard: ScriptedShard) -> None:
    shard.open(4)
    shard.batch("m", Acquire("a"))
    for meet in (lambda: shard.join("n"), lambda: shard.heartbeat("n")):
        shard.advance(1.0)
        meet()
        sequence = int(read_record(shard.client, shard.keys)["sequence"])
        shard.set_clock(shard.server_us - 500_000)  # a step back: the shard's time stands
        before = int(read_record(shard.client, shard.keys)["now_us"])
        reply = shard.batch("m")
        assert reply.now_us == before
        assert int(read_record(shard.client, shard.keys)["sequence"]) >= sequence
        shard.set_clock(shard.server_us + 500_000)


def test_call_that_failed_midway_leaves_nothing_to_the_next(shard: ScriptedShard) -> None:
    shard.open(4)
    shard.batch("m", Acquire("a"), Acquire("b"))
    groups = shard.client.dump(shard.keys["groups"])
    shard.client.delete(shard.keys["groups"])
    shard.client.set(shard.keys["groups"], "of another type")
    with pytest.raises(Refused, match="NOMEMBER"):  # the shard is to be rebuilt
        shard.batch("m", Release("a"), Acquire("c"))
    shard.client.delete(shard.keys["groups"])
    shard.client.restore(shard.keys["groups"], 0, groups)
    assert int(read_window(shard.client, shard.keys)["in_flight"]) == 2
    assert shard.join("m", generation="anew", remembered=GENERATION)[3] == "forgotten"
    assert shard.raw_batch("m", ("inventory", ""))[0][1] == ["a", "b"]
    reply = shard.batch("m", Release("b", generation="anew"))
    assert reply.results == [["released"]]
    assert int(read_window(shard.client, shard.keys)["in_flight"]) == 1
    assert int(read_record(shard.client, shard.keys)["in_flight"]) == 1


def test_what_somebody_else_wrote_is_what_the_next_call_reads(shard: ScriptedShard) -> None:
    shard.open(4)
    shard.batch("m", Acquire("a"))
    add_to_record(shard.client, shard.keys, "places", 100)
    add_to_record(shard.client, shard.keys, "current_limit", -3, "window_chat")
    before = int(read_record(shard.client, shard.keys)["places"])
    assert shard.ask("m", Acquire("b", wait="try"))[:2] == ["denied", "no_capacity"]
    assert int(read_record(shard.client, shard.keys)["places"]) >= before


def test_shards_in_turn_keep_their_own(shard: ScriptedShard) -> None:
    other = ScriptedShard(
        shard.client, FRAGMENTS, ProviderModelKey(provider_name="acme", model_id="other")
    )
    shard.open(4)
    other.open(1)
    for number in range(3):
        shard.batch("m", Acquire(f"a{number}"))
        other.batch("m", Acquire(f"a{number}", wait="try"))
    assert audited(shard.client, shard.keys)["in_flight"] == 3
    assert audited(other.client, other.keys)["in_flight"] == 1
    other.close()


def test_two_windows_with_one_text_stay_two(shard: ScriptedShard) -> None:
    shard.open(4)
    for name, domain in (("a", RequestDomain.CHAT), ("b", RequestDomain.EMBEDDING)):
        shard.batch("m", Acquire(name, domain))
    chat, embedding = (
        read_window(shard.client, shard.keys, name) for name in ("chat", "embedding")
    )
    assert chat == embedding
    shard.batch("m", Release("a", RequestOutcomeKind.RATE_LIMITED))
    assert read_window(shard.client, shard.keys, "embedding") == embedding
    assert read_window(shard.client, shard.keys)["in_flight"] == "0"
