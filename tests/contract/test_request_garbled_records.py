"""Records of a request shard that cannot be read, and losses that come before a rebuild is over."""

from __future__ import annotations

import pytest

from tests.contract.test_request_damage_rules import INTERVAL_SECONDS, settle
from tests.contract.test_request_rebuild_rules import (
    LISTENING_KEY,
    MEMBERS,
    QUOTAS,
    RUN_KEY,
    Fleet,
    check_whole,
)
from tests.support_scripts import (
    CHAT,
    Acquire,
    Op,
    Refused,
    Register,
    Release,
    ScriptedShard,
    State,
    granted,
)
from tests.support_state import audited

CAP = 4


@pytest.mark.parametrize("garbage", ["x", "|||||"])
@pytest.mark.parametrize(
    ("kind", "field", "op"),
    [
        ("leases", "m0", Release("m0")),
        ("waiters", "n2", State("n2")),
        ("waiters", "n2", Acquire("n2")),
        ("groups", "g", Acquire("other")),
        ("meta", "record", Acquire("other")),
        ("meta", "record", Release("m0")),
    ],
)
def test_record_that_cannot_be_read_is_a_damage_and_nobody_elses(
    shard: ScriptedShard, kind: str, field: str, op: Op, garbage: str
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.hset(shard.keys[kind], field, garbage)
    with pytest.raises(Refused, match="NOMEMBER"):
        shard.ask("n" if field == "n2" else "m", op)
    settle(fleet)
    check_whole(fleet)


def test_restart_within_a_rebuild_waits_for_members_that_have_not_stated(
    shard: ScriptedShard,
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.delete(*shard.keys.all)
    fleet.come_back("m")
    shard.client.delete(LISTENING_KEY)
    shard.client.set(RUN_KEY, "another")
    fleet.come_back("m", generation="later")
    assert shard.ask("m", Acquire("x", CHAT, wait="try"))[0] == "denied"  # "n" may hold more
    fleet.come_back("n")
    shard.advance(INTERVAL_SECONDS)
    shard.beat_all(*MEMBERS)
    check_whole(fleet)


def test_rebuild_that_forgets_for_whom_it_waits_lasts_for_an_interval(
    shard: ScriptedShard,
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.delete(*shard.keys.all)
    fleet.come_back("m")
    shard.client.delete(LISTENING_KEY, shard.keys["awaited"])
    shard.client.set(shard.keys["awaited"], "garbage")
    assert not shard.try_batch("m")
    fleet.come_back("m", generation="later")
    assert granted(shard.batch("m", Release("m0", generation="later")).notices) == []
    fleet.held["m"].remove("m0")
    fleet.come_back("n")
    shard.advance(INTERVAL_SECONDS)
    shard.beat_all(*MEMBERS)
    assert granted(shard.batch("m", Register("alias", CAP, QUOTAS)).notices) == ["m2"]
    assert set(audited(shard.client, shard.keys)["leases"]) == {"m1", "m2", "n0", "n1"}


@pytest.mark.parametrize("generation", ["", "\0"])
def test_generation_that_was_never_given_ends_in_a_rebuild(
    shard: ScriptedShard, generation: str
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.hset(shard.keys["meta"], "generation", generation)
    assert not shard.try_batch("m", Acquire("other"))
    settle(fleet)
    check_whole(fleet)
