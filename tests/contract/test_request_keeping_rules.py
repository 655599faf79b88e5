"""What a request shard says of its members, keeps, and leaves behind (design 06): pinned cases."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.support_scripts import (
    GENERATION,
    Acquire,
    Leave,
    Refused,
    Register,
    Release,
    ScriptedShard,
    encode,
)
from tests.support_state import audited, events, transitions


def state(shard: ScriptedShard) -> dict[str, Any]:
    return audited(shard.client, shard.keys)


def test_joining_is_said(shard: ScriptedShard) -> None:
    shard.join("m")
    assert [said["kind"] for _name, said in events(shard.client, shard.keys)] == ["member_joined"]


def test_lost_lease_names_its_holder(shard: ScriptedShard) -> None:
    shard.open(1, "n", "m")
    shard.batch("m", Acquire("a"))
    shard.batch("m", Leave())
    promised, _ = transitions(shard.client, shard.keys)
    said = [event[1:] for event in promised if event[1] == "request_lease_expired"]
    assert said == [("request_lease_expired", "a", "m", "left")]


def test_shard_is_born_anew_without_what_outlived_its_meta(shard: ScriptedShard) -> None:
    shard.open(2)
    shard.batch("m", Acquire("a"), Acquire("b"), Acquire("c"))
    shard.client.delete(*(shard.keys[kind] for kind in ("meta", "members", "held")))
    shard.join("n", generation="later")
    shard.batch("n", Register("alias", 2))
    assert state(shard)["leases"] == {}


def test_shard_whose_last_member_died_leaves_no_endless_key(shard: ScriptedShard) -> None:
    shard.open(1)
    shard.heartbeat("m")
    shard.batch("m", Acquire("a"), Acquire("b", wait=1.0), Release("a", Outcome.RATE_LIMITED))
    # the member dies before its next heartbeat, and nobody ever comes here again
    assert shard.endless_keys() == set()


def test_key_that_is_emptied_and_made_again_does_not_become_endless(shard: ScriptedShard) -> None:
    shard.open(1)
    shard.batch("m", Acquire("a"), Acquire("b", wait=9.0))
    shard.batch("m", Release("a"), Acquire("c", wait=9.0))
    assert set(state(shard)["leases"]) == {"b"}
    assert shard.endless_keys() == set()


def test_shard_that_its_last_member_left_keeps_no_endless_key(shard: ScriptedShard) -> None:
    shard.open(1)
    shard.batch("m", Acquire("a"))
    shard.batch("m", Leave())
    assert shard.endless_keys() == set()


def test_late_call_to_a_shard_that_is_gone_makes_no_key(shard: ScriptedShard) -> None:
    shard.open(1)
    shard.client.delete(*shard.keys.all)
    with pytest.raises(Refused, match="NOMEMBER"):
        shard.batch("m", Acquire("a"))
    assert shard.heartbeat("m")[1:] == [0]
    assert shard.stored_keys() == set()


@pytest.mark.parametrize(
    "wrong",
    [
        ("acquire", "b", "video", "g", "1", "0", ""),
        ("release", "a", "shrug", "0", GENERATION, "", ""),
        ("release", "a"),
        ("steal", "a"),
    ],
)
def test_batch_with_a_wrong_word_changes_nothing(
    shard: ScriptedShard, wrong: tuple[str, ...]
) -> None:
    shard.open(2)
    shard.batch("m", Acquire("a"))
    before = state(shard)
    right = encode(Acquire("c"))
    with pytest.raises(Refused, match="BADBATCH"):
        shard.run("requests/batch", shard.keys.all, ("m", 99, *right, *wrong))
    assert state(shard) == before


def test_script_error_names_the_line_of_its_source(redis_url: str) -> None:
    broken = {"lib/clock": "local function server_time_us()\n  return 1 + nil\nend\n"}
    with open_sync(parse_url(redis_url)) as client:
        shard = ScriptedShard(client, fragments=broken)
        with pytest.raises(Refused, match=r"lua/lib/clock\.lua:2"):
            shard.join("m")
        shard.close()
