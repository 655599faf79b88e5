"""The audit of a request shard agrees with every honest state and names every damage."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.contracts.identity import RequestDomain
from forebay.contracts.snapshots import AuditReport
from tests.contract.shard_under_clock import SERVERS, START_US, Shard, make_busy, open_shard
from tests.support_records import add_to_record, write_setting

LUA = Path(__file__).parents[2] / "lua"


@pytest.fixture(params=SERVERS)
def shard(request: pytest.FixtureRequest) -> Iterator[Shard]:
    yield from open_shard(request)


@pytest.fixture
def busy(shard: Shard) -> Shard:
    return make_busy(shard)


def test_audit_agrees_with_a_busy_shard(busy: Shard) -> None:
    report = busy.audit()

    assert report == AuditReport(ok=True, is_complete=True, difference_count=0, differences=())


def test_audit_and_snapshot_agree_after_every_step_of_a_long_life(shard: Shard) -> None:
    chance = random.Random(7)
    members, asked = ["m0"], 0
    shard.join("m0")
    shard.register("m0", 5, max_hold_seconds=4)
    for step in range(120):
        member_id = members[-1 - chance.randrange(min(2, len(members)))]
        for _ in range(2):
            asked += 1
            domain = chance.choice([RequestDomain.CHAT, RequestDomain.IMAGE])
            group, wait = f"g{chance.randrange(3)}", chance.choice(["", "try", "900000"])
            if shard.client.zscore(shard.keys["members"], member_id):
                shard.acquire(member_id, f"a{asked}", group, wait=wait, domain=domain)
        for lease_id in list(shard.client.hkeys(shard.keys["leases"]))[: chance.randrange(3)]:
            owner = shard.client.hget(shard.keys["leases"], lease_id).split(b"|")[0].decode()
            outcome = chance.choice(["success", "rate_limited", "provider_failure"])
            shard.release(owner, lease_id.decode(), outcome)
        if step % 20 == 19:
            members.append(f"m{step}")
            shard.join(members[-1])
            shard.register(members[-1], chance.randrange(2, 9))
            shard.batch(members[-2], ("leave",))
        shard.pass_time(chance.random())
        if step % 10 == 0:
            shard.client.zadd(shard.keys["members"], {members[-1]: START_US * 2})
        report, seen = shard.audit(), shard.snapshot()
        assert report.differences == ()
        assert seen.aggregate_in_flight == sum(m.lease_count for m in seen.members)
        assert seen.waiters == sum(m.waiters for m in seen.members)
        for view in seen.domains.values():
            assert view.waiters == sum(g.waiting for g in view.waiting_groups)


def test_audit_agrees_with_an_override_of_a_resource_that_nobody_registered(shard: Shard) -> None:
    shard.join("m1")
    write_setting(shard.client, shard.keys, "override_cap", 3)

    assert shard.audit().differences == ()


DAMAGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "a slot that leaked": (("+", "window_chat", "in_flight", 1), "meta"),
    "a wrong sum of slots": (("+", "record", "in_flight", 1), "meta"),
    "a lost lease": (("HDEL", "leases", "a1"), "meta"),
    "an unreadable lease": (("HSET", "leases", "a1", "?"), "leases"),
    "a lease that its member's end would not find": (("ZREM", "held", "m1\0lease\0a1"), "held"),
    "an entry that nothing backs": (("ZADD", "held", 0, "m1\0lease\0ghost"), "held"),
    "a holder that is no member": (("ZREM", "members", "m1"), "members"),
    "a lost waiter": (("HDEL", "waiters", "b2"), "meta"),
    "an unreadable waiter": (("HSET", "waiters", "b2", "?|chat"), "waiters"),
    "a waiter out of its queue": (("ZREMRANGEBYRANK", "fifo", 0, 0), "fifo"),
    "a deadline that was forgotten": (("ZREM", "deadlines", "a4"), "deadlines"),
    "a deadline that moved": (("ZADD", "deadlines", 5, "a4"), "deadlines"),
    "a deadline of nobody": (("ZADD", "deadlines", 5, "ghost"), "deadlines"),
    "a group out of line": (("ZREMRANGEBYRANK", "line_chat", 0, 0), "line_chat"),
    "a group in a line where it does not wait": (
        ("ZADD", "line_image", 1, "0000000000000009\0other"),
        "line_image",
    ),
    "a line whose tag differs from its group's": (("ZINCRBY", "line_chat", 1, None), "line_chat"),
    "a group that is unknown": (("HDEL", "groups", "other"), "groups"),
    "an unreadable group": (("HSET", "groups", "other", "1|"), "groups"),
    "a group that would never be forgotten": (("ZREM", "idle_groups", "main"), "idle_groups"),
    "a hold of nobody": (("ZADD", "holds", 5, "ghost"), "holds"),
    "a lease both live and finished": (("ZADD", "finished", 2, "a1"), "finished"),
    "a reply kept for nobody": (("HSET", "meta", "@ghost", "1 []"), "meta"),
    "a cap above the smallest": (("+", "record", "static_cap", 1), "meta"),
    "a window above its maximum": (("+", "window_chat", "current_limit", 9), "meta"),
    "a registration of nobody": (("ZADD", "aliases", 9, "ghost\0main"), "members"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_audit_names_the_key_of(busy: Shard, damage: str) -> None:
    (command, kind, *rest), named = DAMAGES[damage]
    first_in_line = busy.client.zrange(busy.keys["line_chat"], 0, 0)[0]
    args = [first_in_line if part is None else part for part in rest]
    if command == "+":
        add_to_record(busy.client, busy.keys, *args, kind)
    else:
        busy.client.execute_command(command, busy.keys[kind], *args)
    report = busy.audit()

    assert not report.ok
    assert report.difference_count == len(report.differences)
    assert any(line.startswith(f"{busy.keys[named]} ") for line in report.differences)
    assert all(": expected " in line and ", found " in line for line in report.differences)


def test_audit_tells_at_most_a_hundred_differences(busy: Shard) -> None:
    ghosts = {f"m1\0lease\0ghost{i}": 0 for i in range(150)}
    busy.client.zadd(busy.keys["held"], ghosts)
    report = busy.audit()
    lines = [line.decode() for line in busy.run("requests/audit", "lines")]

    assert (len(report.differences), report.difference_count) == (100, 151)
    assert (lines[0], lines[-1]) == ("151 differences", "... and 51 more")


def test_audit_of_a_shard_too_large_for_one_look_compares_the_totals(busy: Shard) -> None:
    source = (LUA / "lib/shard/audit.lua").read_text()
    small = {"lib/shard/audit": source.replace("most_entries = 100000", "most_entries = 9")}
    assert small["lib/shard/audit"] != source
    assert busy.audit(small) == AuditReport(
        ok=True, is_complete=False, difference_count=0, differences=()
    )
    lines = busy.run("requests/audit", "lines", fragments=small)
    assert lines[0].startswith(b"ok in the totals; single entries were not compared")

    add_to_record(busy.client, busy.keys, "in_flight", 1)
    assert not busy.audit(small).ok
