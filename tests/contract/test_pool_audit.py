"""The audit of a pool agrees with honest states and names every damage; show tells the rest."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.contracts.snapshots import AuditReport
from forebay.coordinator.scripts.operator_library import ask_text
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import audit_pool, pool_lines
from tests.contract.pool_under_clock import MODEL, ONE, OTHER, Pool, open_pool
from tests.contract.run_plans import plan
from tests.contract.shard_under_clock import SERVERS
from tests.support_records import add_to_record

LUA = Path(__file__).parents[2] / "lua"
OK = AuditReport(ok=True, is_complete=True, difference_count=0, differences=())


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    yield from open_pool(request)


@pytest.fixture
def busy(pool: Pool) -> Pool:
    """Two leases, four ready tasks in two groups, a delayed one and a run that has begun."""
    pool.open("m", "n")
    for i in range(4):
        pool.submit(f"a{i}", "a", MODEL, limit=1)
    pool.submit("b0", "b", OTHER, weight=2)
    assert len(pool.admit(2)) == 2
    pool.submit("later", "b", weight=2, delay_us=9_000_000)
    pool.admit(0, by="n")
    pool.ask("m", "run_submit", "run", plan(), "{}")
    return pool


def test_audit_agrees_with_a_busy_pool(busy: Pool) -> None:
    assert busy.audit() == OK


def test_audit_agrees_after_every_step_of_a_long_life(pool: Pool) -> None:
    chance = random.Random(7)
    pool.open("m")
    members, asked = ["m"], 0
    for step in range(120):
        member = members[-1]
        for _ in range(2):
            asked += 1
            asks, limit = chance.choice([ONE, MODEL, OTHER]), chance.choice(["", 1, 3])
            delay_us = chance.choice([0, 0, 700_000])
            group = f"g{chance.randrange(4)}"
            pool.submit(f"t{asked}", group, asks, limit=limit, delay_us=delay_us, by=member)
        pool.admit(chance.randrange(4), by=member)
        for lease in [key.decode() for key in pool.client.hkeys(pool.keys["leases"])]:
            if chance.random() < 0.6:
                pool.finish(lease, by=member)
            elif chance.random() < 0.3:
                pool.ask(member, "retry", lease, chance.choice([0, 500_000]), 0)
        if chance.random() < 0.3:
            pool.discard(f"t{chance.randrange(asked)}", by=member)
        pool.ask(member, "claim", "request:p/m", "pool", chance.randrange(1, 6))
        if step % 20 == 19:
            members.append(f"m{step}")
            pool.join(members[-1])
            pool.ask(member, "leave")
        pool.pass_time(chance.random())
        pool.join(members[-1])
        assert pool.audit() == OK


DAMAGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "an amount that leaked": (("HINCRBY", "ledger", "submission", 1), "ledger"),
    "an amount of nobody": (("HSET", "ledger", "gpu", 1), "ledger"),
    "a wrong count of leases": (("+", "record", "running", 1), "meta"),
    "a wrong count of ready tasks": (("+", "record", "queued", 1), "meta"),
    "a wrong count of delayed tasks": (("+", "record", "delayed", 1), "meta"),
    "a lost lease": (("HDEL", "leases", "a0~1"), "tasks"),
    "an unreadable lease": (("HSET", "leases", "a0~1", "?"), "leases"),
    "a lease of no task": (("HDEL", "tasks", "a0"), "tasks"),
    "a lease of another signature": (
        ("HSET", "leases", "a0~1", "m|a0|a|submission=1|5|"),
        "leases",
    ),
    "a lease that its member's end would not find": (("ZREM", "held", "m\0lease\0a0~1"), "held"),
    "an entry that nothing backs": (("ZADD", "held", 0, "m\0lease\0ghost"), "held"),
    "a holder that is no member": (("ZREM", "members", "m"), "members"),
    "an unreadable task": (("HSET", "tasks", "a1", "a|1"), "tasks"),
    "a task in two places": (("ZADD", "delayed", 5, "a1"), "tasks"),
    "a task out of its queue": (("ZREMRANGEBYRANK", "fifo", 0, 0), "fifo"),
    "a delayed task that was forgotten": (("ZREM", "delayed", "later"), "tasks"),
    "a delayed task of nobody": (("ZADD", "delayed", 5, "ghost"), "delayed"),
    "a parked task of nobody": (("ZADD", "parked", 0, "s\x001\0ghost"), "parked"),
    "a wrong count of parked tasks": (("+", "record", "parked", 1), "meta"),
    "a function that nobody runs": (("HSET", "functions", "f", 1), "functions"),
    "a task that arq cannot see": (("ZREM", "queue", "a1"), "queue"),
    "an id that arq sees and nobody runs": (("ZADD", "queue", 5, "ghost"), "queue"),
    "a group out of line": (("ZREMRANGEBYRANK", "ready", 0, 0), "ready"),
    "a group that stands in line for nothing": (
        ("ZADD", "ready", 0, "x\0open\x001\x001\0g"),
        "ready",
    ),
    "a wrong count of lines": (("HSET", "signatures", MODEL, "2|0|2000000"), "signatures"),
    "lines of nobody": (("HSET", "signatures", "gpu=1", "1|0|1000000"), "signatures"),
    "a group that is unknown": (("HDEL", "groups", "b"), "groups"),
    "an unreadable group": (("HSET", "groups", "a", "1|"), "groups"),
    "a group with wrong counts": (("HSET", "groups", "b", "1|1|1|7|1|1|7|0||||||"), "groups"),
    "a group that would never be forgotten": (("ZREM", "idle_groups", "a"), "idle_groups"),
    "a lease both live and finished": (("ZADD", "finished", 2, "a0~1"), "finished"),
    "a limit that nobody claims": (("HSET", "limits", "gpu", 5), "limits"),
    "a limit above the smallest claim": (("HSET", "limits", "submission", 101), "limits"),
    "an idle member that is none": (("ZADD", "idle", 5, "ghost"), "idle"),
    "a reply kept for nobody": (("HSET", "meta", "@ghost", "1 []"), "meta"),
    "a cell of no run": (("HSET", "cells", "gone\x000\0seed", "1"), "cells"),
    "a count of no run": (("HSET", "progress", "gone\0done", "1"), "progress"),
    "a row group of no run": (("HSET", "row_groups", "gone\x000", "1"), "row_groups"),
    "a checkpoint of no run": (("ZADD", "checkpoints", 0, "gone\x000"), "checkpoints"),
    "a workflow of no run": (("HSET", "runs", "gone\0workflow", "{}"), "runs"),
    "a wrong count of open row groups": (("HINCRBY", "progress", "run\0open", 1), "progress"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_audit_names_the_key_of(busy: Pool, damage: str) -> None:
    (command, kind, *args), named = DAMAGES[damage]
    if command == "+":
        add_to_record(busy.client, busy.keys, *args, kind)
    else:
        busy.client.execute_command(command, busy.keys[kind], *args)
    report = busy.audit()

    assert not report.ok
    assert report.difference_count == len(report.differences)
    assert any(line.startswith(f"{busy.keys[named]} ") for line in report.differences)
    assert all(": expected " in line and ", found " in line for line in report.differences)


def test_audit_tells_at_most_a_hundred_differences(busy: Pool) -> None:
    busy.client.zadd(busy.keys["held"], {f"m\0lease\0ghost{i}": 0 for i in range(150)})
    report = busy.audit()
    lines = [line.decode() for line in busy.run("tasks/audit", "lines")]

    assert (len(report.differences), report.difference_count) == (100, 151)
    assert (lines[0], lines[-1]) == ("151 differences", "... and 51 more")


def test_audit_of_a_pool_too_large_for_one_look_compares_the_totals(busy: Pool) -> None:
    source = (LUA / "lib/shard/audit.lua").read_text()
    small = {"lib/shard/audit": source.replace("most_entries = 100000", "most_entries = 9")}
    assert busy.audit(small) == OK.model_copy(update={"is_complete": False})

    add_to_record(busy.client, busy.keys, "running", 1)
    assert not busy.audit(small).ok


def test_show_has_a_row_for_each_resource_ask_group_member_and_run(busy: Pool) -> None:
    lines = busy.show()
    rows = [line.split() for line in lines]

    assert lines[0].startswith("main  generation born  clock 1795482385.03")
    assert lines[1] == (
        "queued 4, delayed 1, parked 0, running 2, groups waiting 2, members 2, idle 0"
    )
    assert lines[2] == "policy strict, state open"
    assert ["request:p/m", "4", "1"] in rows
    assert [f"{MODEL};", "0", "1", "yes"] in rows
    assert ["a", "1", "1", "3", "1", "1", "capped", "-"] in rows
    assert ["b", "2", "0.5", "0", "1", "-", "-", "-"] in rows
    assert ["m", "15", "s", "2", "0.0", "s", "-"] in rows
    assert ["run", "4", "0", "0", "2", "1", "0", "0"] in rows


def test_show_tells_tasks_that_wait_beside_the_queue(pool: Pool) -> None:
    pool.open("m")
    pool.ask("m", "serve", "other")
    for task, function in (("a", "f"), ("b", "g"), ("c", "f")):
        assert pool.submit(task, function=function) == ["accepted", "not_served"]
    add_to_record(pool.client, pool.keys, "suspect_tasks", 2)

    lines = pool.show()
    rows = [line.split() for line in lines]
    assert "lost with a member, run again one at a time: 2" in lines
    assert "function that no live worker has  tasks  first task" in lines
    assert (["f", "2", "a"] in rows, ["g", "1", "b"] in rows) == (True, True)


def test_show_of_a_pool_that_nobody_used_says_so_and_writes_nothing(pool: Pool) -> None:
    assert pool.show() == ["main  nobody has used this pool; list those in use"]
    assert pool.audit() == OK
    assert [kind for kind in pool.keys.kinds if pool.client.exists(pool.keys[kind])] == []


def test_operators_functions_look_at_a_pool_by_its_name_alone(busy: Pool) -> None:
    def published(name: str) -> list[bytes]:
        reply: list[bytes] = busy.client.eval(ask_text(), 0, name, busy.keys.tag)
        return reply

    assert published("audit") == [b"ok"]
    assert published("show")[1].startswith(b"queued 4, delayed 1, parked 0, running 2")


async def test_program_looks_at_a_pool_without_writing(redis_url: str) -> None:
    async with await ServerConnection.open(redis_url) as connection:
        assert await audit_pool(connection, "main") == OK
        assert (await pool_lines(connection, "main"))[0].startswith("main  nobody")
        assert await connection.client.keys("*") == []
