"""`forebay shards`, `who`, `members`, `waiters`, `shares` and `events` on a server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from forebay.commands import showing
from forebay.contracts.errors import ConfigurationError, CoordinatorError
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.coordinator.operator_questions import decode_answer
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard_events import EventFilter, EventReader
from tests.contract.test_explain_command import ITEM, MODEL, forebay
from tests.support import wait_until
from tests.support_tasks import group, joined, task

SHARD = "rq:p/m"


@asynccontextmanager
async def busy(connection: ServerConnection) -> AsyncIterator[RequestAdmissionLease]:
    """A provider/model with a lease and a waiter, and a pool with three tasks of two tenants."""
    requests = AdaptiveRequestAdmissionController(connection)
    await requests.register(MODEL, "main", 1)
    lease = await requests.acquire(ITEM)
    another = RequestAdmissionItem(resource=ITEM.resource, group=ITEM.group)
    waiting = asyncio.create_task(requests.acquire(another))
    pressure = RequestPressureSnapshotProvider(connection)

    async def is_waiting() -> bool:
        return (await pressure.global_snapshot(MODEL)).waiters > 0

    await wait_until(is_waiting)
    try:
        async with joined(connection, "mail") as tasks:
            for number, name in enumerate(("a", "a", "b")):
                await tasks.queue.submit(task(f"t{number}", group(name)))
            yield lease
            for number in range(3):
                await tasks.queue.discard(f"t{number}")
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})
        await requests.release(lease, SUCCESS)
        await requests.close()


async def asked(url: str, *words: str) -> list[dict[str, Any]]:
    """Return the rows of a question, and check the form that all documents have."""
    shown = await forebay(*words, "--json", "--url", url)
    assert shown.exit_code == 0, shown.exception
    document = json.loads(shown.output)
    assert list(document) == ["question", "rows"]
    assert document["question"] == words[0]
    return list(document["rows"])


def one(rows: list[dict[str, Any]], kind: str, **having: Any) -> dict[str, Any]:
    (row,) = [row for row in rows if row["row"] == kind and having.items() <= row.items()]
    return row


async def test_each_question_is_answered_in_lines_and_in_typed_rows(
    connection: ServerConnection, redis_url: str
) -> None:
    await connection.client.function_flush()  # tests before this one loaded them
    shown = await forebay("who", "--url", redis_url)
    assert isinstance(shown.exception, CoordinatorError)
    assert "expected those that each member loads as it joins" in str(shown.exception)

    async with busy(connection) as lease:
        for question, said in {
            "shards": SHARD,
            "who": lease.member_id,
            "members": lease.member_id,
            "waiters": "tenant",
            "shares": "tenant",
            "events": "request_resource_registered",
        }.items():
            given = [] if question == "shards" else [SHARD]
            shown = await forebay(question, *given, "--url", redis_url)
            assert shown.exit_code == 0, shown.exception
            assert said in shown.output
            assert max(map(len, shown.output.splitlines())) <= 80

        row = one(await asked(redis_url, "shards"), "shard", shard=SHARD)
        assert (row["members"], row["leases"], row["waiting"], row["state"]) == (1, 1, 1, "open")
        rows = await asked(redis_url, "who", "p/m")
        assert one(rows, "totals")["leases"] == 1
        assert (
            one(rows, "member")["pid"]
            == one(await asked(redis_url, "members", SHARD), "member")["pid"]
        )
        assert one(rows, "lease")["lease_id"] == lease.lease_id
        assert one(rows, "lease")["held_for_seconds"] >= 0
        row = one(await asked(redis_url, "members", SHARD), "member")
        assert (row["leases"], row["waiters"], row["version"]) == (1, 1, "0.1.0")
        assert 0 <= row["last_heartbeat_seconds_ago"] < row["expires_in_seconds"] + 3600
        rows = await asked(redis_url, "waiters", SHARD)
        assert (one(rows, "domain")["window"], one(rows, "waiter")["turn"]) == (1, 1)
        assert one(rows, "waiter")["leaves_in_seconds"] is None
        rows = await asked(redis_url, "waiters", "mail", "--rows", "2")
        assert [row["turn"] for row in rows if row["row"] == "task"] == [1, 2]
        assert one(rows, "totals")["ready"] == 3
        rows = await asked(redis_url, "shares", "pool:mail")
        assert one(rows, "tenant", tenant="local/a")["waiting"] == 2
        assert one(rows, "group", group="local/b")["weight"] == 1


async def test_a_name_that_no_shard_has_is_told_with_those_near(
    connection: ServerConnection, redis_url: str
) -> None:
    async with busy(connection):
        for name, near in {"rq:p/n": "rq:p/m", "maul": "mail"}.items():
            for question in ("who", "events"):
                shown = await forebay(question, name, "--url", redis_url)
                assert isinstance(shown.exception, ConfigurationError)
                assert f"did you mean {near}" in str(shown.exception)


async def test_a_damaged_shard_is_told_in_its_place_and_ends_with_1(
    connection: ServerConnection, redis_url: str
) -> None:
    async with busy(connection):
        await connection.client.sadd("fb:shards", "rq:bad/m", "x:y")
        await connection.client.set("fb:{rq:bad/m}:meta", "garbage")
        await connection.client.set("fb:{rq:bad/m}:events", "garbage")
        for question in ("who", "events"):
            shown = await forebay(question, "--json", "--url", redis_url)
            assert shown.exit_code == 1
            rows = json.loads(shown.output)["rows"]
            assert {row["shard"] for row in rows if row["row"] == "problem"} >= {"rq:bad/m"}
            assert SHARD in {row["shard"] for row in rows if row["row"] != "problem"}
        await connection.client.delete("fb:{rq:bad/m}:meta", "fb:{rq:bad/m}:events")
        await connection.client.srem("fb:shards", "rq:bad/m", "x:y")


async def test_events_are_filtered_and_those_that_follow_come_once(
    connection: ServerConnection, redis_url: str
) -> None:
    async with busy(connection):
        rows = await asked(redis_url, "events", "--kind", "request_resource_*")
        assert {row["kind"] for row in rows} == {"request_resource_registered"}
        assert rows[0]["fields"]["cap"] == 1
        assert await asked(redis_url, "events", "--tenant", "nobody") == []

        shown = await forebay("set-cap", "p", "m", "5", "--url", redis_url)
        assert shown.exit_code == 0, shown.exception
        (row,) = await asked(redis_url, "events", "--kind", "request_override_cap_changed")
        assert row["fields"]["to"] == 5
        assert row["fields"]["by"].endswith(f"@{socket.gethostname()}")

        reader = EventReader(connection, EventFilter(kinds=("member_*",)))
        tags = await connection.shards()
        first = await reader.read(tags, 1)
        assert [row["kind"] for row in first] == ["member_joined"]
        assert await reader.read(tags) == []
        async with joined(connection, "other") as tasks:
            await tasks.queue.submit(task("t9"))
            later = await reader.read(await connection.shards())
            await tasks.queue.discard("t9")
        assert [(row["shard"], row["kind"]) for row in later] == [("pool:other", "member_joined")]


async def test_watching_ends_where_nobody_reads_any_more(
    connection: ServerConnection, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []

    def read_two(text: str) -> bool:
        printed.append(text)
        return len(printed) < 4

    monkeypatch.setattr(showing, "is_printed", read_two)
    monkeypatch.setattr(showing, "EVERY_SECONDS", 0.0)
    async with busy(connection):
        shown = await forebay("shards", "--watch", "--url", redis_url)
    assert shown.exit_code == 0, shown.exception
    assert [text.split("\n")[0][:5] for text in printed] == ["shard", "", "shard", ""]


def test_functions_of_another_version_are_told() -> None:
    with pytest.raises(CoordinatorError, match="another version"):
        decode_answer([b"leases 0, members 0"], "who")
