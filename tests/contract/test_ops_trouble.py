"""`forebay ops` beside shards that cannot be read: each is named, and hides no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import forebay
from forebay.coordinator.keys import SHARDS_KEY, pool_shard, request_shard
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.ops import fleet as fleet_module
from forebay.ops import listing as listing_module
from forebay.ops.fleet import Fleet, FleetReader
from forebay.ops.metrics import metrics_text
from forebay.ops.watcher import HISTORY_SECONDS, STALE_SECONDS, History, Watcher
from tests.contract.chat_domain import MODEL
from tests.contract.test_ops import busy, looking
from tests.support import wait_until

OTHER = forebay.ProviderModelKey(provider_name="p", model_id="other")


@pytest.fixture(autouse=True)
def patient_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a look take its time on a busy machine."""
    monkeypatch.setattr(fleet_module, "LOOK_SECONDS", 60.0)


def put(url: str, *tags: str, **strings: str) -> None:
    """Write entries of the index, and keys that are no hashes, lists or streams."""
    with open_sync(parse_url(url)) as client:
        client.sadd(SHARDS_KEY, *tags)
        for key, text in strings.items():
            client.set(key, text)


async def test_each_shard_that_cannot_be_read_is_named_and_hides_no_other(redis_url: str) -> None:
    async with (
        busy(redis_url),
        await ServerConnection.open(redis_url, only_reads=True) as connection,
    ):
        torn, torn_pool = request_shard(OTHER), pool_shard("torn")
        newer = forebay.ProviderModelKey(provider_name="p", model_id="newer")
        put(
            redis_url,
            *(torn.tag, torn_pool.tag, request_shard(newer).tag),
            *("pool:", "rq:no-model", "notes"),
            **{torn["meta"]: "no hash", torn_pool["meta"]: "no hash"},
        )
        with open_sync(parse_url(redis_url)) as client:
            client.hset(request_shard(newer)["meta"], "schema", "999")
        fleet = await FleetReader(connection).look()
    assert list(fleet.models) == [MODEL]
    assert list(fleet.pools) == ["mails"]
    named = {problem.partition(": ")[0] for problem in fleet.problems if ": " in problem}
    assert named == {"p/other", "p/newer", "pool torn"}
    foreign = [problem for problem in fleet.problems if "the index of shards names" in problem]
    assert len(foreign) == len({"pool:", "rq:no-model", "notes"})


async def test_damage_of_a_part_leaves_the_other_parts_of_the_shard(redis_url: str) -> None:
    async with (
        busy(redis_url),
        await ServerConnection.open(redis_url, only_reads=True) as connection,
    ):
        with open_sync(parse_url(redis_url)) as client:
            runs, events = pool_shard("mails")["runs"], request_shard(MODEL)["events"]
            kept = client.dump(events)
            client.hset(runs, mapping={"r": "", "r\0workflow": "{}"})
            client.delete(events)
            client.set(events, "no stream")
            fleet = await FleetReader(connection).look()
            client.delete(runs, events)
            client.restore(events, 0, kept)
    assert list(fleet.models) == [MODEL]
    assert list(fleet.pools) == ["mails"]
    assert any(problem.startswith("pool mails: run r: ") for problem in fleet.problems)
    assert any(problem.startswith("p/m: ") for problem in fleet.problems)


async def test_a_shard_that_does_not_answer_in_time_is_named_and_holds_nobody_up(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = request_shard(OTHER)
    read = ServerConnection.read

    async def answers(self: ServerConnection, name: str, keys: Any, args: Any = ()) -> bytes:
        if silent["meta"] in keys:
            await asyncio.Event().wait()
        return await read(self, name, keys, args)

    monkeypatch.setattr(ServerConnection, "read", answers)
    monkeypatch.setattr(fleet_module, "LOOK_SECONDS", 0.5)
    async with (
        busy(redis_url),
        await ServerConnection.open(redis_url, only_reads=True) as connection,
    ):
        put(redis_url, silent.tag)
        reader = FleetReader(connection)

        async def names_the_silent_one_alone() -> bool:  # a busy machine may read others late
            fleet = await reader.look()
            shown = (list(fleet.models), list(fleet.pools), list(fleet.problems))
            return shown == ([MODEL], ["mails"], ["p/other: no answer within 0.5 s"])

        await wait_until(names_the_silent_one_alone)
        await wait_until(names_the_silent_one_alone)  # the first look left nothing that holds it up


async def test_shards_are_read_together_but_a_few_at_a_time(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, at_once, most = ServerConnection.read, 0, 0

    async def counted(self: ServerConnection, name: str, keys: Any, args: Any = ()) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await read(self, name, keys, args)
        finally:
            at_once -= 1

    monkeypatch.setattr(ServerConnection, "read", counted)
    put(redis_url, *(f"rq:p/m{number}" for number in range(40)))
    async with await ServerConnection.open(redis_url, only_reads=True) as connection:
        fleet = await FleetReader(connection).look()
    assert len(fleet.models) == 40
    assert most == fleet_module.READS_AT_ONCE


async def test_of_too_many_shards_those_that_exist_are_read(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "MOST_SHARDS", 2)
    async with (
        busy(redis_url),
        await ServerConnection.open(redis_url, only_reads=True) as connection,
    ):
        put(redis_url, *(f"rq:a/gone{number}" for number in range(5)))
        fleet = await FleetReader(connection).look()
    assert MODEL in fleet.models
    assert (len(fleet.models), len(fleet.pools), fleet.unread) == (2, 1, 4)


async def test_rights_that_were_taken_away_are_told_by_the_stream_and_as_503(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = redis_url.replace("unix://", "unix://looker:secret@")
    with open_sync(parse_url(redis_url)) as client:
        client.execute_command(
            "ACL", "SETUSER", "looker", "reset", "on", ">secret", "~*", "&*", "+@all"
        )
        try:
            async with busy(redis_url), looking(user, monkeypatch) as page:
                client.execute_command("ACL", "SETUSER", "looker", "-smembers")
                async with page.stream("GET", "/api/stream") as said:
                    async for line in said.aiter_lines():
                        if line.startswith("data: ") and "forbids this user" in line:
                            break
                answer = await page.get("/api/fleet")
                assert answer.status_code == 503
                assert "forbids this user" in answer.json()["error"]
                assert "forebay_up 0.0" in (await page.get("/metrics")).text
        finally:
            client.execute_command("ACL", "DELUSER", "looker")


class _Still:
    """A reader whose looks succeed, then hang."""

    def __init__(self, connection: ServerConnection) -> None:
        self._reader = FleetReader(connection)
        self.hangs = False

    async def look(self) -> Any:
        if self.hangs:
            await asyncio.Event().wait()
        return await self._reader.look()


async def test_looks_that_hang_are_no_longer_up_in_the_metrics(redis_url: str) -> None:
    now = 0.0
    async with await ServerConnection.open(redis_url, only_reads=True) as connection:
        reader: Any = _Still(connection)
        async with Watcher(reader, 0.01, clock=lambda: now) as watcher:
            await wait_until(lambda: watcher.is_current)
            reader.hangs = True
            assert b"forebay_up 1.0" in metrics_text(watcher, {})

            def is_stale() -> bool:  # later and later: a look may have been under way
                nonlocal now
                now += STALE_SECONDS + 1
                return not watcher.is_current

            await wait_until(is_stale)
            assert b"forebay_up 0.0" in metrics_text(watcher, {})


def test_a_window_that_one_look_missed_keeps_its_history() -> None:
    history = History()
    row: dict[str, Any] = {"provider": "p", "model": "m", "domain": "chat", "window": 4}
    row |= {"in_flight": 1, "waiting": 0, "rate_limited": 2, "granted": 7}
    history.add(100.0, [row])
    history.add(101.0, [])
    history.add(102.0, [row | {"rate_limited": 5, "granted": 9}])
    assert history.rows() == {"p/m chat": [(100.0, 4, 1, 0, 0, 0), (102.0, 4, 1, 0, 3, 2)]}
    history.add(102.0 + HISTORY_SECONDS + 1, [])
    assert history.rows() == {}


async def test_members_that_died_on_an_idle_fleet_are_overdue_and_put_no_count_out_of_order(
    redis_url: str,
) -> None:
    async with await ServerConnection.open(redis_url, only_reads=True) as connection:
        shard = await FleetReader(connection).model(MODEL)
        died = {"overdue_leases": 3, "overdue_holds": 1}
        shard = shard.model_copy(update={"overdue_member_count": 1, "leak_diagnostics": died})
        fleet = Fleet(at=0.0, models={MODEL: shard}, pools={}, runs=(), events=())
        watcher = Watcher(FleetReader(connection), 1.0)
        watcher.fleet = fleet
        text = metrics_text(watcher, {MODEL: "m"}).decode()
    labels = '{model="m",provider="p"}'
    assert f"forebay_members_overdue{labels} 1.0" in text
    assert f"forebay_leases_overdue{labels} 3.0" in text
    assert f"forebay_out_of_order{labels} 0.0" in text
