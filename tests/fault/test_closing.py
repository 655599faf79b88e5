"""Closing, cancelling and losing the server cross each other, and leave nobody behind.

Rules: design 06.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

import forebay
from forebay.contracts.errors import CoordinatorUnavailable, SchemaMismatch
from forebay.coordinator.requests.registering import Sweep
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.joining import Memberships
from forebay.coordinator.shard.session import Session
from tests.contract.chat_domain import MODEL, item
from tests.support import wait_until
from tests.support_proxy import FaultyProxy
from tests.support_records import make_overdue
from tests.support_scene import Controller, settings, soon


def members(url: str) -> int:
    with open_sync(parse_url(url)) as client:
        return sum(client.zcard(key) for key in client.keys("fb:*members*"))


def session_of(requests: Controller) -> Session:
    return requests._shards[MODEL].session


class Hold:
    """Holds a coroutine function up until it is let go.

    Attributes:
        is_reached: whether it was called.
    """

    def __init__(self, function: Any, *, after: bool) -> None:
        self._function = function
        self._after = after
        self.is_reached = False
        self.go = asyncio.Event()

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._after:
            self.is_reached = True
            await self.go.wait()
        result = await self._function(*args, **kwargs)
        if self._after:
            self.is_reached = True
            await self.go.wait()
        return result


@pytest.mark.parametrize("after", [False, True], ids=["before it joins", "after it has joined"])
async def test_a_close_that_meets_a_join_leaves_no_member_and_no_heartbeat(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    async with await ServerConnection.open(redis_url, settings()) as connection:
        requests = Controller(connection)
        held = Hold(Memberships.join, after=after)
        monkeypatch.setattr(Memberships, "join", lambda mine: held(mine))  # noqa: PLW0108 - a method
        registering = asyncio.ensure_future(requests.register(MODEL, "mine", 1))
        await wait_until(lambda: held.is_reached)
        closing = asyncio.ensure_future(requests.close())
        await asyncio.sleep(0)
        held.go.set()
        await soon(closing)
        await soon(asyncio.gather(registering, return_exceptions=True))
        assert connection.node.heartbeat._memberships == {}
        assert connection.node.subscriber._listeners == {}
        assert members(redis_url) == 0


async def test_a_close_that_is_cancelled_closes_all_the_same(redis_url: str) -> None:
    async with (
        FaultyProxy(redis_url) as proxy,
        await ServerConnection.open(proxy.url) as connection,
    ):
        requests = Controller(connection)
        await requests.register(MODEL, "mine", 1)
        session = session_of(requests)
        proxy.stall()
        closing = asyncio.ensure_future(requests.close())
        await wait_until(lambda: bool(session._batches.under_way))
        closing.cancel()
        with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
            await soon(closing)
        assert logs == []  # its connection was dropped on purpose: no outage
        assert session.is_closed
        assert session._link.wire is None
        assert connection.node.heartbeat._memberships == {}
        with pytest.raises(CoordinatorUnavailable):
            await soon(session.ask(Sweep()))
        proxy.flow()


async def test_a_close_during_a_repair_ends_it(redis_url: str) -> None:
    brief = settings(call_timeout_seconds=0.3)
    async with (
        FaultyProxy(redis_url) as proxy,
        await ServerConnection.open(proxy.url, brief) as connection,
    ):
        requests = Controller(connection)
        await requests.register(MODEL, "mine", 1)
        session = session_of(requests)
        proxy.refuse()
        with pytest.raises(CoordinatorUnavailable):
            await soon(requests.try_acquire(item()))
        assert session._link.repairing.is_running
        await soon(requests.close())
        assert not session._link.repairing.is_running
        await proxy.accept()


async def test_a_close_before_the_first_join_waits_for_no_server(redis_url: str) -> None:
    """The call timeout is far above the test's patience."""
    async with FaultyProxy(redis_url) as proxy:
        patient = settings(call_timeout_seconds=60.0)
        async with await ServerConnection.open(proxy.url, patient) as connection:
            requests = Controller(connection)
            proxy.stall()
            asking = asyncio.ensure_future(requests.register(MODEL, "mine", 1))
            await asyncio.sleep(0)
            session = session_of(requests)
            await wait_until(lambda: session._link.repairing.is_running)
            await soon(requests.close())
            with pytest.raises(CoordinatorUnavailable):
                await soon(asking)
            proxy.flow()


async def end_membership(connection: ServerConnection, session: Session) -> None:
    """Let a shard forget its one member, as after its expiry."""
    keys, membership = session.keys, session.membership
    assert membership is not None
    await connection.client.delete(keys["members"], keys["checks"], keys["intervals"])
    await connection.client.hdel(keys["meta"], f"@{membership.member_id}")


async def test_a_close_under_a_membership_that_has_ended_waits_for_no_deadline(
    redis_url: str,
) -> None:
    """A call under way is answered NOMEMBER; its deadline is far above the test's patience."""
    patient = settings(call_timeout_seconds=60.0)
    async with (
        FaultyProxy(redis_url) as proxy,
        await ServerConnection.open(proxy.url, patient) as connection,
    ):
        requests = Controller(connection)
        await requests.register(MODEL, "mine", 1)
        session = session_of(requests)
        await end_membership(connection, session)
        proxy.stall()
        asked = session.ask(Sweep())
        await wait_until(lambda: bool(session._batches.under_way))
        closing = asyncio.ensure_future(requests.close())
        await wait_until(lambda: session._batches.has_waiting)
        proxy.flow()
        with pytest.raises(CoordinatorUnavailable):
            await soon(asked)
        await soon(closing)
        assert connection.node.heartbeat._memberships == {}


async def test_one_shard_that_cannot_be_closed_keeps_no_other_open(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await ServerConnection.open(redis_url, settings()) as connection:
        requests = Controller(connection)
        other = forebay.ProviderModelKey(provider_name="p", model_id="other")
        await requests.register(MODEL, "mine", 1)
        await requests.register(other, "mine", 1)
        shards = list(requests._shards.values())

        async def refuse() -> None:
            raise ValueError

        monkeypatch.setattr(shards[0], "close", refuse)
        with pytest.raises(ValueError):  # noqa: PT011 - raised above
            await requests.close()
        assert shards[1].session.is_closed
        await shards[0].session.close()


async def test_one_connection_that_cannot_be_closed_keeps_no_other_open(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await ServerConnection.open(redis_url, settings())
    requests = Controller(connection)
    await requests.register(MODEL, "mine", 1)
    stop = connection.node.heartbeat.stop

    async def stop_and_raise() -> None:
        await stop()
        raise ValueError

    monkeypatch.setattr(connection.node.heartbeat, "stop", stop_and_raise)
    await requests.close()
    with pytest.raises(ValueError):  # noqa: PT011 - raised above
        await connection.close()
    assert connection.node.subscriber._wire is None
    assert connection.node.subscriber._is_closed


# -- what the server refuses for good


async def test_a_refusal_is_given_to_callers_at_once_and_is_no_hot_loop(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a member: what it frees goes on being tried, after pauses."""
    tries: list[int] = []
    patient = settings(call_timeout_seconds=60.0)
    async with forebay.connect(redis_url, patient) as requests:
        await requests.register(MODEL, "mine", 1)
        lease = await requests.acquire(item())
        session = session_of(requests)
        connect = session._link._open

        async def refuse() -> Any:
            tries.append(session._link.failures)
            raise SchemaMismatch("another version")

        monkeypatch.setattr(session._link, "_open", refuse)
        session._link.drop("for the test")
        release = requests.release(lease, forebay.SUCCESS)
        with pytest.raises(SchemaMismatch):
            await soon(requests.register(MODEL, "mine", 1))
        assert (await soon(release)).reason is forebay.ReleaseReason.DEFERRED
        await wait_until(lambda: len(tries) > 2)
        assert tries == sorted(set(tries)), "each try comes after a longer pause"
        monkeypatch.setattr(session._link, "_open", connect)

        async def is_free() -> bool:
            return (await requests.pressure.global_snapshot(MODEL)).aggregate_in_flight == 0

        await wait_until(is_free)


async def test_an_outage_of_any_length_ends(redis_url: str) -> None:
    """Of so many failures that their exponential pause would be no number any more."""
    async with FaultyProxy(redis_url) as proxy:
        async with forebay.connect(proxy.url, settings(call_timeout_seconds=0.3)) as requests:
            await requests.register(MODEL, "mine", 1)
            session = session_of(requests)
            subscriber: Any = requests._server.node.subscriber
            session._link.failures = subscriber._failures = 100_000
            with capture_logs() as logs:
                proxy.refuse()
                with pytest.raises(CoordinatorUnavailable):
                    await soon(requests.register(MODEL, "mine", 1))
                await proxy.accept()
                await wait_until(lambda: not session._link.repairing.is_running)
                await wait_until(lambda: not subscriber._reconnecting.is_running)
            await soon(requests.register(MODEL, "mine", 1))
        assert "unexpected_exception" not in {entry["event"] for entry in logs}


async def test_a_lost_membership_and_the_next_are_said_equally_loud(redis_url: str) -> None:
    async with forebay.connect(redis_url, settings()) as requests:
        await requests.register(MODEL, "mine", 1)
        membership = requests._shards[MODEL].session.membership
        assert membership is not None
        with open_sync(parse_url(redis_url)) as client:
            make_overdue(client, membership.keys, membership.member_id)
        with capture_logs() as logs:
            await soon(requests.register(MODEL, "mine", 1))
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("membership_lost", "warning"),
        ("membership_joined_anew", "warning"),
    ]
