"""`forebay shards`, `who`, `waiters`, `shares` and `events` on a server."""

from __future__ import annotations

import asyncio
import json

from forebay.contracts.errors import CoordinatorError
from forebay.contracts.requests import RequestAdmissionItem
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.test_explain_command import ITEM, MODEL, forebay
from tests.support import wait_until


async def test_each_question_prints_the_lines_of_its_function(
    connection: ServerConnection, redis_url: str
) -> None:
    await connection.client.function_flush()  # tests before this one loaded them
    shown = await forebay("who", "--url", redis_url)
    assert isinstance(shown.exception, CoordinatorError)
    assert "expected those that each member loads as it joins" in str(shown.exception)

    requests = AdaptiveRequestAdmissionController(connection)
    await requests.register(MODEL, "main", 1)
    lease = await requests.acquire(ITEM)
    another = RequestAdmissionItem(resource=ITEM.resource, group=ITEM.group)
    waiting = asyncio.create_task(requests.acquire(another))

    async def is_waiting() -> bool:
        return (
            await RequestPressureSnapshotProvider(connection).global_snapshot(MODEL)
        ).waiters > 0

    await wait_until(is_waiting)
    for question, said in {
        "shards": "rq:p/m",
        "who": lease.member_id,
        "waiters": "tenant",
        "shares": "tenant",
        "events": "request_resource_registered",
    }.items():
        given = [] if question == "shards" else ["rq:p/m"]
        shown = await forebay(question, *given, "--url", redis_url)
        assert shown.exit_code == 0, shown.exception
        assert said in shown.output
    shown = await forebay("who", "rq:p/m", "--rows", "5", "--json", "--url", redis_url)
    found = json.loads(shown.output)
    assert found["question"] == "who"
    assert any(lease.member_id in line for line in found["lines"])
    waiting.cancel()
    await asyncio.wait({waiting})
    await requests.close()
