"""What an operator with redis-cli alone runs: texts on the server, one key, lines as a reply."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.keys import OPERATOR_SCRIPTS_KEY, SHARDS_KEY, request_shard
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.scripts.operators import (
    ARGUMENT_BYTES,
    OPERATOR_RIGHTS,
    operator_scripts,
    publish_scripts,
)
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.contract.shard_under_clock import LARGE, SERVERS, Shard, make_busy, open_shard
from tests.support_records import add_to_record


@pytest.fixture(params=SERVERS)
def shard(request: pytest.FixtureRequest) -> Iterator[Shard]:
    yield from open_shard(request)


@pytest.fixture
def busy(shard: Shard) -> Shard:
    return make_busy(shard)


def test_show_has_a_row_for_each_window_group_member_and_alias(busy: Shard) -> None:
    lines = busy.show()
    rows = [line.split() for line in lines]
    text = " ".join(" ".join(lines).split())

    assert lines[0].startswith("local/mock%2Flarge%20%7B1%7D  generation born  clock 1795482385.03")
    assert "static cap 4, override -, in flight 4, leases 4, waiters 3, members 2" in lines
    assert "overdue: members 0, leases 0, holds 0" in lines
    assert (
        "domain: chat window 4 effective max 4 in flight 3 waiters 3 cooldown - ceiling - cuts 0"
        " streak 0 rate limits in a row 0 last outcome -"
    ) in text
    assert "domain: chat granted 3 success 0 rate_limited 0" in text
    assert ["m1", "15.000", "s", "3", "1"] in rows
    assert ["slow%20one", "6", "m2"] in rows
    assert [row[0] for row in rows if row[1:2] == ["2"] and len(row) == 4] == ["run%207"]


def run_published(shard: Shard, name: str, *keys: str) -> list[str]:
    reply = shard.client.eval(operator_scripts()[name], len(keys), *keys)
    return [line.decode() for line in reply]


def test_published_scripts_find_a_shard_by_its_meta_key_alone(busy: Shard) -> None:
    shown = run_published(busy, "show", busy.keys["meta"])

    assert set(shown) & {line for line in busy.show() if line.startswith("static cap")}
    assert run_published(busy, "audit", busy.keys["meta"]) == ["ok"]
    add_to_record(busy.client, busy.keys, "in_flight", 1, "window_chat")
    assert run_published(busy, "audit", busy.keys["meta"])[0] == "2 differences"


@pytest.mark.parametrize("key", [[], ["fb:{rq:a/b}:leases"], ["fb:{other:a}:meta"], ["shards"]])
@pytest.mark.parametrize("name", ["show", "audit"])
def test_published_scripts_say_which_key_they_want(shard: Shard, name: str, key: list[str]) -> None:
    (line,) = run_published(shard, name, *key)

    assert line.startswith("expected the meta key of a shard")


def test_published_list_names_the_key_to_look_at_next(shard: Shard) -> None:
    assert run_published(shard, "shards", SHARDS_KEY)[0].startswith("no shard")
    shard.client.sadd(SHARDS_KEY, "rq:b/x", "rq:a/x", "pool:main")

    assert run_published(shard, "shards", SHARDS_KEY) == [
        "fb:{pool:main}:meta",
        "fb:{rq:a/x}:meta",
        "fb:{rq:b/x}:meta",
    ]


async def test_publishing_again_writes_nothing_and_a_change_is_replaced(redis_url: str) -> None:
    async with await Coordinator.open(redis_url) as coordinator:
        await publish_scripts(coordinator.client)
        stored = await coordinator.client.hgetall(OPERATOR_SCRIPTS_KEY)
        assert {k.decode(): v.decode() for k, v in stored.items()} == operator_scripts()

        await coordinator.client.hset(OPERATOR_SCRIPTS_KEY, "show", "mine")
        await publish_scripts(coordinator.client)
        assert await coordinator.client.hget(OPERATOR_SCRIPTS_KEY, "show") == b"mine"

        await coordinator.client.hset(OPERATOR_SCRIPTS_KEY, "digest", "older")
        await publish_scripts(coordinator.client)
        assert await coordinator.client.hgetall(OPERATOR_SCRIPTS_KEY) == stored


async def test_an_operator_who_may_only_read_can_look_and_can_change_nothing(
    redis_url: str,
) -> None:
    async with await Coordinator.open(redis_url) as coordinator:
        controller = AdaptiveRequestAdmissionController(coordinator)
        await controller.register(LARGE, "main", 2)
        await publish_scripts(coordinator.client)
        rights = ["reset", "on", ">secret", *OPERATOR_RIGHTS]
        await coordinator.client.execute_command("ACL", "SETUSER", "operator", *rights)
        meta = request_shard(LARGE)["meta"]
        with open_sync(parse_url(redis_url)) as client:
            client.auth("secret", "operator")
            for name, key in (("show", meta), ("audit", meta), ("shards", SHARDS_KEY)):
                assert client.eval_ro(client.hget(OPERATOR_SCRIPTS_KEY, name), 1, key)
            assert client.xrevrange(request_shard(LARGE)["events"])
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.hset(meta, "static_cap", 9)
        await coordinator.client.execute_command("ACL", "DELUSER", "operator")
        await controller.close()


def test_every_script_is_short_enough_to_be_one_argument_of_redis_cli() -> None:
    assert {
        n: len(t.encode()) for n, t in operator_scripts().items() if len(t) > ARGUMENT_BYTES
    } == {}
