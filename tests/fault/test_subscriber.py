"""The connection on which members are woken outlives cancelled subscribers and silent servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

import forebay
from forebay.contracts.errors import CoordinatorUnavailable
from forebay.coordinator.server import wakeups
from forebay.coordinator.server.wakeups import Subscriber
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import MODEL
from tests.support import wait_until
from tests.support_proxy import FaultyProxy
from tests.support_scene import item, open_scene, settings, soon

NEVER_SECONDS = 60.0


def ignore(*_: Any) -> None:
    pass


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def subscriber(proxy: FaultyProxy) -> AsyncIterator[Subscriber]:
    async with await ServerConnection.open(proxy.url, settings()) as connection:
        yield connection.node.subscriber


async def begin_to_subscribe(subscriber: Subscriber, session: str) -> asyncio.Task[None]:
    task = asyncio.create_task(subscriber.subscribe(session, ignore, ignore))
    await asyncio.sleep(0)
    return task


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_while_subscribing_ends_nobody_elses_wake_ups(
    proxy: FaultyProxy, subscriber: Subscriber
) -> None:
    resumed: list[int] = []
    await soon(subscriber.subscribe("fb:one", ignore, lambda: resumed.append(1)))
    wire = subscriber._wire
    await cancel(await begin_to_subscribe(subscriber, "fb:two"))
    await soon(subscriber.subscribe("fb:three", ignore, ignore))
    assert subscriber._wire is wire
    assert resumed == []


async def test_a_connection_on_which_nothing_came_is_replaced_by_the_next_subscriber(
    proxy: FaultyProxy, subscriber: Subscriber
) -> None:
    await soon(subscriber.subscribe("fb:one", ignore, ignore))
    silent = subscriber._wire
    assert silent is not None
    silent._transport.pause_reading()
    await cancel(await begin_to_subscribe(subscriber, "fb:two"))
    assert subscriber._unanswered_since is not None
    subscriber._unanswered_since -= subscriber._connect_timeout_seconds
    await soon(subscriber.subscribe("fb:two", ignore, ignore))
    assert subscriber._wire is not silent


async def test_a_connection_that_never_opens_holds_no_other_up_for_ever(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_wire, hung = wakeups.open_wire, []

    async def hang_once(*args: Any) -> Any:
        if not hung:
            hung.append(1)
            await asyncio.Event().wait()
        return await open_wire(*args)

    brief = settings(call_timeout_seconds=0.3)
    async with forebay.connect(redis_url, brief) as requests:
        await requests.register(MODEL, "mine", 1)
        subscriber: Any = requests._server.node.subscriber
        monkeypatch.setattr(wakeups, "open_wire", hang_once)
        subscriber.drop("the test says so")
        await wait_until(lambda: bool(hung))
        other = forebay.ProviderModelKey(provider_name="acme", model_id="other")

        async def is_served() -> bool:
            try:
                await requests.register(other, "mine", 1)
            except CoordinatorUnavailable:
                return False
            return True

        await wait_until(is_served)


async def test_a_message_that_cannot_be_read_is_made_up_for(redis_url: str) -> None:
    async with open_scene(redis_url, settings(recheck_seconds=NEVER_SECONDS)) as scene:
        await scene.fill()
        waiting = asyncio.create_task(scene.take(scene.member))
        await scene.until(waiters=1)
        session: Any = scene.member._shards[item().resource.provider_model].session
        subscriber = session._server.node.subscriber
        listener = subscriber._listeners[
            session.keys.wake_channel(session.membership.member_id).encode()
        ]
        good, listener.on_message = listener.on_message, lambda _payload: good(b"no JSON")
        with capture_logs() as logs:
            await scene.free_one()
            await soon(waiting)
        assert [entry["event"] for entry in logs] == ["unexpected_exception"]
        await scene.release_all()


async def test_a_connection_that_opens_after_the_close_is_closed_as_well(
    proxy: FaultyProxy, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_wire, opened, go = wakeups.open_wire, [], asyncio.Event()

    async def open_late(*args: Any) -> Any:
        opened.append(await open_wire(*args))
        await go.wait()
        return opened[0]

    monkeypatch.setattr(wakeups, "open_wire", open_late)
    subscribing = await begin_to_subscribe(subscriber, "fb:one")
    await wait_until(lambda: bool(opened))
    await subscriber.close()
    go.set()
    with pytest.raises(CoordinatorUnavailable):
        await soon(subscribing)
    assert not opened[0]._is_open
    assert subscriber._wire is None


async def test_lost_wake_ups_and_their_return_are_said_once_each(redis_url: str) -> None:
    async with open_scene(redis_url, settings(recheck_seconds=NEVER_SECONDS)) as scene:
        waiting = asyncio.create_task(scene.take(scene.member))
        await soon(waiting)
        subscriber: Any = scene.member._server.node.subscriber
        with capture_logs() as logs:
            scene.proxy.refuse_subscribers()
            await wait_until(lambda: subscriber._failures > 3)
            scene.proxy.accept_subscribers()
            await wait_until(lambda: not subscriber._state.is_lost)
        await scene.release_all()
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("coordinator_unavailable", "warning"),
        ("coordinator_available", "warning"),
    ]
    assert {entry["noticed_by"] for entry in logs} == {"wake-ups"}
