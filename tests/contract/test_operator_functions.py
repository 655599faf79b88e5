"""What an operator with redis-cli alone calls: read-only functions that answer in lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
import redis

from forebay.contracts.settings import RequestAdmissionTuningConfig
from forebay.coordinator.keys import SHARDS_KEY, pool_shard, request_shard
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.scripts.operator_library import (
    LIBRARY,
    QUESTIONS,
    ask_text,
    library_version,
    operator_library,
    publish_functions,
)
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.pool_under_clock import Pool
from tests.contract.shard_under_clock import (
    LARGE,
    SERVERS,
    UNDER_CLOCK,
    Shard,
    make_busy,
    open_shard,
)
from tests.support_records import add_to_record

QUESTIONS_LUA = (files("forebay.lua") / "lib/shard/questions.lua").read_text()
OF_SHARDS = tuple(name for name in QUESTIONS if name not in {"shards", "doctor"})
TAG = request_shard(LARGE).tag
REDIS_CLI_WIDTH = 100


@pytest.fixture(params=SERVERS)
def shard(request: pytest.FixtureRequest) -> Iterator[Shard]:
    yield from open_shard(request)


@pytest.fixture
def busy(shard: Shard) -> Shard:
    make_busy(shard).client.sadd(SHARDS_KEY, TAG)
    return shard


ASK = ask_text(UNDER_CLOCK)


def ask(client: Any, question: str, *arguments: Any) -> list[str]:
    """Return the lines of an answer under the test's clock, and check what holds for every one."""
    lines = [line.decode("ascii") for line in client.eval(ASK, 0, question, *arguments)]
    assert all(line.isprintable() and len(line) <= REDIS_CLI_WIDTH for line in lines)
    return lines


def names_in(client: Any, key: str) -> set[bytes]:
    return set(client.hkeys(key))


def rows_of(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines]


# -- one shard


def test_show_has_a_row_for_each_window_group_member_and_alias(busy: Shard) -> None:
    lines = busy.show()
    rows = rows_of(lines)
    text = " ".join(" ".join(lines).split())

    assert lines[0].startswith("local/mock%2Flarge%20%7B1%7D  generation born  clock 1795482385.03")
    assert "static cap 4, override -, in flight 4, leases 4, waiters 3, members 2" in lines
    assert "overdue: members 0, leases 0, holds 0" in lines
    assert (
        "domain: chat window 4 effective max 4 in flight 3 waiters 3 cooldown - ceiling - cuts 0"
        " streak 0 rate limits in a row 0 last outcome -"
    ) in text
    assert "domain: chat granted 3 success 0 rate_limited 0" in text
    assert ["m1", "15", "s", "3", "1"] in rows
    assert ["slow%20one", "6", "m2"] in rows
    assert [row[0] for row in rows if row[1:2] == ["2"] and len(row) == 4] == ["run%207"]


def test_show_tells_what_moved_a_window_last_and_when(busy: Shard) -> None:
    busy.pass_time(3)
    busy.register("m1", 2, "fast")
    busy.pass_time(12)
    rows = rows_of(ask(busy.client, "show", TAG))
    (row,) = [row for row in rows if row[:1] == ["chat"] and "cap" in row]
    assert row == ["chat", "4", "2", "cap", "12", "s", "ago"]


def test_who_tells_the_members_with_the_most_leases_first_and_how_long(busy: Shard) -> None:
    busy.pass_time(4)
    lines = ask(busy.client, "who", TAG)
    assert lines[0] == "leases 4, members 2"
    rows = rows_of(lines)
    assert [row for row in rows if row[:1] in (["m1"], ["m2"])] == [
        ["m1", "web-1", "4711", "worker.py", "3", "4.0", "s", "11", "s"],
        ["m2", "web-1", "4711", "worker.py", "1", "4.0", "s", "11", "s"],
    ]
    assert ["b1", "embedding", "main", "m2", "4.0", "s"] in rows


def test_waiters_stand_in_the_order_in_which_they_are_granted(busy: Shard) -> None:
    for attempt_id, group in (("c1", "other"), ("c2", "run 7"), ("c3", "late")):
        busy.pass_time(2)
        busy.batch("m1", ("sweep",))
        busy.batch("m2", ("sweep",))
        assert busy.acquire("m1", attempt_id, group, wait="500000000") == "waiting"
    told = rows_of(ask(busy.client, "waiters", TAG))
    order = [row[3] for row in told if row and row[0].isdigit()]
    assert ["2.0", "s"] in [row[4:6] for row in told if "c2" in row]

    granted = []
    held = ["a1", "a2", "a3"]
    while busy.snapshot().waiters:
        waiting = names_in(busy.client, busy.keys["waiters"])
        lease = busy.client.hget(busy.keys["leases"], held[0])
        assert isinstance(lease, bytes)
        busy.release(lease.decode().split("|")[0], held.pop(0))
        (now,) = waiting - names_in(busy.client, busy.keys["waiters"])
        granted.append(now.decode())
        held.append(granted[-1])
    assert order == granted


@pytest.mark.parametrize("key", ["", "fb:{other:a}:meta", "nobody", "rq:a/b}x", "\x1b[2J\n"])
def test_a_name_that_is_no_shard_is_told_with_the_remedy(shard: Shard, key: str) -> None:
    shard.client.sadd(SHARDS_KEY, "rq:a/b")
    for question in OF_SHARDS:
        lines = ask(shard.client, question, key or "?")
        assert lines[0].startswith("no shard is called")
        assert "fb_shards" in lines[1]


def test_a_shard_is_found_by_its_tag_by_any_of_its_keys_and_by_its_name(busy: Shard) -> None:
    asked = [TAG, TAG.removeprefix("rq:"), busy.keys["leases"]]
    assert [ask(busy.client, "audit", name) for name in asked] == [["ok"]] * 3
    assert busy.client.eval(ASK, 1, busy.keys["meta"], "audit") == [b"ok"]


# -- what each group got


def test_shares_tell_what_each_group_got_in_the_last_minute_against_its_weight(
    shard: Shard,
) -> None:
    shard.pass_time(60 - 25.033913)  # the clock stands at the begin of a minute
    shard.join("m")
    shard.register("m", 100, tuning=RequestAdmissionTuningConfig(rule="aimd"))
    for n in range(3):
        assert shard.acquire("m", f"x{n}", "atlas", weight=1) == "granted"
    shard.pass_time(10)
    shard.batch("m", ("sweep",))
    for n in range(9):
        assert shard.acquire("m", f"y{n}", "borealis", weight=3) == "granted"
    rows = rows_of(shard.look("shares"))
    assert ["borealis", "0", "9", "75", "%", "75", "%", "3"] in rows
    assert ["atlas", "0", "3", "25", "%", "25", "%", "1"] in rows

    shard.client.zadd(shard.keys["members"], {"m": 1e17})
    shard.pass_time(60 + 20)  # half of the minute before lies within the last 60 seconds
    rows = rows_of(shard.look("shares"))
    assert {row[0]: row[2] for row in rows if row[-1:] in (["1"], ["3"])} == {
        "borealis": "4",
        "atlas": "2",
    }
    shard.pass_time(60)
    assert shard.look("shares") == ["no group waits or had a turn in the last minute"]


# -- all shards


def test_shards_tells_of_each_how_many_hold_and_wait_and_when_it_was_called(busy: Shard) -> None:
    busy.client.sadd(SHARDS_KEY, "rq:b/x", "pool:main", "x:y", "\x1b[31mred")
    busy.pass_time(30)
    lines = ask(busy.client, "shards")
    rows = {row[0]: row[1:] for row in rows_of(lines)}
    assert rows[TAG] == ["2", "4", "3", "30", "s", "ago", "open"]
    assert rows["pool:main"] == ["0", "0", "0", "-", "unused"]
    assert rows["x:y"][:4] == rows["\\x1b[31mred"][:4] == ["-"] * 4

    assert ask(busy.client, "shards", "", 2)[-1] == "... and 3 more"


def test_list_of_no_shard_says_so(shard: Shard) -> None:
    for question in ("shards", *OF_SHARDS):
        assert ask(shard.client, question) == ["no shard: nobody has used Forebay on this server"]


def test_audit_of_all_tells_the_shard_that_differs_and_goes_on(busy: Shard) -> None:
    pool = Pool(busy.client)
    pool.open("m")
    busy.client.sadd(SHARDS_KEY, pool.keys.tag, "rq:b/x")
    assert ask(busy.client, "audit")[0] == "ok"
    add_to_record(busy.client, busy.keys, "in_flight", 1, "window_chat")

    lines = ask(busy.client, "audit")
    assert lines[0] == "1 of 3 shards differ"
    assert f"{TAG}  2 differences" in lines
    assert f"{pool.keys.tag}  ok" in lines
    assert "in_flight of chat: expected 3, found 4" in " ".join(lines)
    pool.close()


@pytest.mark.parametrize("kind", ["meta", "leases", "held", "groups", "events", "members"])
def test_damage_of_one_shard_is_told_and_hides_no_other(busy: Shard, kind: str) -> None:
    client: Any = busy.client
    pool = Pool(client)
    pool.open("m")
    client.sadd(SHARDS_KEY, pool.keys.tag)
    for keys in (busy.keys, pool.keys):
        for question in OF_SHARDS:
            whole = ask(client, question, TAG if keys is pool.keys else pool.keys.tag)
            dumped = client.dump(keys[kind])
            client.delete(keys[kind])
            client.set(keys[kind], "\x1b[31mgarbage\n")
            both = ask(client, question)
            client.delete(keys[kind])
            if dumped:
                client.restore(keys[kind], 0, dumped)
            if question == "audit":
                assert any("damaged" in line for line in both)
            assert whole[0] in " ".join(both)
    pool.close()


def test_doctor_tells_versions_side_by_side_and_what_members_were_started_with_otherwise(
    busy: Shard,
) -> None:
    def checks() -> dict[str, list[str]]:
        return {check[1]: check for check in json.loads(busy.client.eval(ASK, 0, "doctor_members"))}

    assert checks()["settings"][0] == "ok"
    assert checks()["members"][:3] == ["ok", "members", "version 0.1.0 (2 members)"]
    words = b"web-2 12 worker.py 0.0.9 1"
    busy.client.hset(busy.keys["meta"], "member:m2", words)
    busy.client.hset(busy.keys["intervals"], "m2", 2_000_000)
    busy.register("m1", 4, "fast", tuning=RequestAdmissionTuningConfig(rule="aimd"))
    busy.register("m2", 5, "fast", tuning=RequestAdmissionTuningConfig(rule="steady"))
    state, _name, said, remedy = checks()["settings"]
    assert (state, remedy.partition(":")[0]) == ("wrong", "start all members alike")
    assert "TTLs are 15 s (1 member), 6 s (1 member)" in said
    assert "cap of alias fast is 4 (1 member), 5 (1 member)" in said
    assert "rule was set to aimd (1 member), steady (1 member)" in said
    assert checks()["members"][2] == "version 0.0.9 (1 member), 0.1.0 (1 member)"


def test_leases_that_are_looked_at_are_shared_among_the_members(busy: Shard) -> None:
    few = {"lib/shard/questions": QUESTIONS_LUA.replace("most_leases = 1000", "most_leases = 2")}
    lines = [line.decode() for line in busy.run("requests/look", "who", 100, fragments=few)]
    assert lines[0] == "leases 4, members 2, leases looked at 2"
    assert any("4.0 s of 1" in line or "0.0 s of 1" in line for line in lines)
    assert not any("not looked at" in line for line in lines)


def test_answers_are_bounded_and_say_how_many_more(busy: Shard) -> None:
    busy.client.sadd(SHARDS_KEY, *(f"rq:b/x{n:03}" for n in range(110)))
    assert ask(busy.client, "shards")[-1] == "... and 11 more"
    assert ask(busy.client, "audit")[-1] == "... and 11 more shards: name one"
    assert "... and 1 more" in ask(busy.client, "who", TAG, 1)
    assert "... and 2 more" in ask(busy.client, "waiters", TAG, 1)
    assert len(ask(busy.client, "events", TAG, 1)) == 1


# -- the library on a server


async def test_library_is_loaded_once_and_another_version_is_replaced(redis_url: str) -> None:
    async with await ServerConnection.open(redis_url) as connection:
        client = connection.client
        await publish_functions(client)
        assert (
            await client.execute_command("FCALL_RO", "fb_version", 0) == library_version().encode()
        )
        before = await client.info("commandstats")
        await publish_functions(client)
        after = await client.info("commandstats")
        name = "cmdstat_function|load"
        assert before[name]["calls"] == after[name]["calls"]

        older = operator_library().replace(library_version(), "older")
        await client.execute_command("FUNCTION", "LOAD", "REPLACE", older)
        await publish_functions(client)
        assert (
            await client.execute_command("FCALL_RO", "fb_version", 0) == library_version().encode()
        )


async def test_a_function_of_another_library_is_left_and_the_member_joins(redis_url: str) -> None:
    other = (
        "#!lua name=mine\nredis.register_function{function_name='fb_show',"
        " callback=function() return 'mine' end, flags={'no-writes'}}"
    )
    async with await ServerConnection.open(redis_url) as connection:
        await connection.client.execute_command("FUNCTION", "FLUSH")
        await connection.client.execute_command("FUNCTION", "LOAD", other)
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(LARGE, "main", 2)
        assert await connection.client.execute_command("FCALL_RO", "fb_show", 0) == b"mine"
        await connection.client.execute_command("FUNCTION", "DELETE", "mine")
        await controller.close()


def test_functions_can_write_nothing_and_help_names_each(redis_url: str) -> None:
    with open_sync(parse_url(redis_url)) as client:
        client.function_load(operator_library(), replace=True)
        (listed,) = client.function_list(library=LIBRARY)
        functions = dict(zip(listed[::2], listed[1::2], strict=True))[b"functions"]
        flags = {f[1].decode(): f[5] for f in functions}
        assert {"no-writes"} <= set.intersection(
            *({g.decode() for g in one} for one in flags.values())
        )
        told = b"\n".join(client.execute_command("FCALL_RO", "fb_help", 0)).decode()
        assert {name for name in QUESTIONS if f" fb_{name} 0" in told} == set(QUESTIONS)
        pool = pool_shard("main")
        with pytest.raises(redis.exceptions.ResponseError):
            client.execute_command("FCALL_RO", "fb_nothing", 0, pool.tag)


def test_doctor_names_what_hurts(redis_url: str) -> None:
    with open_sync(parse_url(redis_url)) as client:
        client.function_load(operator_library(), replace=True)

        def told() -> dict[str, list[str]]:
            lines = [line.decode() for line in client.execute_command("FCALL_RO", "fb_doctor", 0)]
            return {line.split()[1]: line.split() for line in lines if not line.startswith(" ")}

        sound = told()
        assert {"version", "role", "policy", "persistence", "memory", "clock", "shards"} <= set(
            sound
        )
        assert sound["policy"][0] == "ok"
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.sadd(SHARDS_KEY, "rq:a/b")
        client.hset("fb:{rq:a/b}:meta", "record", "1|99999999999999999")
        client.zadd("fb:{rq:a/b}:members", {"m": 1})
        try:
            hurt = told()
        finally:
            client.config_set("maxmemory-policy", "noeviction")
        assert [hurt[name][0] for name in ("policy", "clock", "shards")] == ["wrong"] * 3
