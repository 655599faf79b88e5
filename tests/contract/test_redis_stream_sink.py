"""A sink that writes events to a Redis stream of the program's own (design 07)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from structlog.testing import capture_logs

import forebay
from forebay.contracts.event_kinds import RequestEventKind
from forebay.contracts.events import EventStream, EventSubject
from forebay.coordinator.event_outlet import EventOutlet
from forebay.sinks import MemorySink, RedisStreamSink

KEY = "program:events"
ATTEMPT = EventSubject(stream=EventStream.REQUEST, request_attempt_id="a")


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Any]:
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client
        await client.delete(KEY)


def tell(count: int, *sinks: Any) -> EventOutlet:
    outlet = EventOutlet(sinks)
    for number in range(count):
        outlet.emit(RequestEventKind.REQUEST_WAIT_STARTED, ATTEMPT, (1.0, number))
    return outlet


async def test_all_events_of_attempts_are_entries_in_their_order(
    redis_url: str, client: Any
) -> None:
    kept, sink = MemorySink(), RedisStreamSink(client, KEY)
    model = forebay.ProviderModelKey(provider_name="p", model_id="m")
    resource = forebay.RequestResourceKey(provider_model=model)
    async with forebay.connect(redis_url, event_sinks=[kept, sink]) as requests:
        await requests.register(model, "a", 1)
        async with requests.attempt(forebay.RequestAdmissionItem(resource=resource)) as attempt:
            requests.assert_held(attempt.lease)
    await sink.aclose()
    entries = [fields for _, fields in await client.xrange(KEY)]

    assert [one["kind"] for one in entries] == kept.kinds()
    assert [json.loads(one["event"]) for one in entries] == [one.as_json() for one in kept.events]
    assert (len(entries), sink.dropped) == (6, 0)


async def test_events_of_other_threads_are_written_and_the_stream_is_capped(client: Any) -> None:
    sink = RedisStreamSink(client, KEY, most_kept=100)
    await asyncio.to_thread(tell, 1000, sink)
    await sink.aclose()
    entries = await client.xrevrange(KEY, count=1)
    assert json.loads(entries[0][1]["event"])["sequence"] == 999
    assert 100 <= await client.xlen(KEY) < 1000


async def test_more_events_than_may_wait_drop_the_oldest_and_are_counted(client: Any) -> None:
    sink = RedisStreamSink(client, KEY, most_waiting=10)
    assert tell(25, sink).lost == {}
    await sink.aclose()
    entries = [json.loads(fields["event"]) for _, fields in await client.xrange(KEY)]
    assert [one["sequence"] for one in entries] == [*range(15, 25)]
    assert sink.dropped == 15


async def test_a_server_that_is_away_holds_nothing_up_and_every_event_is_counted() -> None:
    async with redis.asyncio.Redis(host="127.0.0.1", port=1) as nobody:
        sink = RedisStreamSink(nobody, KEY)
        with capture_logs() as logged:
            assert tell(600, sink).lost == {}
            await sink.aclose()
    assert sink.dropped == 600
    assert [line["event"] for line in logged] == ["events_not_written"]
