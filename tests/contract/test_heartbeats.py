"""The thread that keeps memberships alive survives every failure, and logs it.

Rules: design 06, *Members*.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
import redis
from structlog.testing import capture_logs

import forebay
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import request_shard
from forebay.coordinator.server.availability import Availability
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.heartbeat import Heartbeat
from forebay.coordinator.server.libraries import Libraries
from forebay.coordinator.server.membership import Membership, boot_seconds
from forebay.coordinator.server.urls import parse_url
from tests.contract.chat_domain import MODEL, item
from tests.support import wait_until
from tests.support_proxy import FaultyProxy
from tests.support_scene import soon

TTL_SECONDS = 0.3
SETTINGS = MemberSettings(ttl_seconds=TTL_SECONDS)
ADDRESS = parse_url("redis://localhost:6379/0")
ALIVE = b"[0, 1]"
SECRET = "a secret"  # no line of a traceback quotes it, only the message does


class Server:
    """A client whose heartbeats are answered as a test says.

    Attributes:
        beats: the member ids of all heartbeats, in order.
        dropped: how often its connections were closed.
    """

    def __init__(self, answer: Callable[[int, str], bytes]) -> None:
        self.beats: list[str] = []
        self.dropped = 0
        self._answer = answer
        self.connection_pool = self

    def fcall(self, _function: str, key_count: int, *args: str) -> bytes:
        member_id = args[key_count]
        self.beats.append(member_id)
        return self._answer(self.beats.count(member_id), member_id)

    def disconnect(self) -> None:
        self.dropped += 1

    def close(self) -> None:
        pass


class Fresh:
    """A client of a server that has every library: it answers that its code is as wanted."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def execute_command(self, command: str, *_arguments: str) -> list[Any]:
        assert command in {"FUNCTION LIST", "FUNCTION LOAD"}
        return []


def membership(member_id: str) -> Membership:
    return Membership(
        member_id=member_id,
        generation="g",
        keys=request_shard(MODEL),
        run_id="run",
        ttl_seconds=TTL_SECONDS,
        acknowledged_at=boot_seconds(),
        on_unknown=lambda _membership: None,
    )


@asynccontextmanager
async def beating(server: Server) -> AsyncIterator[Heartbeat]:
    client: Any = server
    heartbeat = Heartbeat(client, SETTINGS, Availability(ADDRESS), Libraries(), Fresh)
    try:
        yield heartbeat
    finally:
        await heartbeat.stop()


def loud(logs: list[Any]) -> list[tuple[str, str]]:
    return [(entry["event"], entry["log_level"]) for entry in logs]


def raise_bug() -> bytes:
    raise AttributeError(SECRET)


def raise_away() -> bytes:
    raise redis.ConnectionError("gone")


@pytest.mark.parametrize(
    "broken", [raise_bug, lambda: b"no JSON", lambda: b"[1]", lambda: None], ids=[1, 2, 3, 4]
)
async def test_a_heartbeat_that_raises_is_said_once_and_tried_again(broken: Any) -> None:
    server = Server(lambda _count, _member: broken() if server.dropped < 3 else ALIVE)
    with capture_logs() as logs:
        async with beating(server) as heartbeat:
            member = membership("m")
            before = member.acknowledged_at
            heartbeat.add(member)
            await wait_until(lambda: member.acknowledged_at > before)
    assert loud(logs) == [("unexpected_exception", "error"), ("recovered", "warning")]
    assert "Traceback" in logs[0]["stack"]
    assert SECRET not in str(logs)
    assert server.dropped == 3


async def test_one_membership_whose_heartbeat_raises_costs_no_other() -> None:
    server = Server(lambda _count, member: raise_bug() if member == "bad" else ALIVE)
    with capture_logs() as logs:
        async with beating(server) as heartbeat:
            for name in ("bad", "good"):
                heartbeat.add(membership(name))
            await wait_until(lambda: server.beats.count("good") >= 3)
            await wait_until(lambda: server.beats.count("bad") >= 3)
    assert loud(logs) == [("unexpected_exception", "error")]


async def test_heartbeats_that_fail_and_those_that_come_again_are_said_once_each() -> None:
    server = Server(lambda count, _member: ALIVE if count in {1, 5, 6} else raise_away())
    with capture_logs() as logs:
        async with beating(server) as heartbeat:
            heartbeat.add(membership("m"))
            await wait_until(lambda: server.beats.count("m") >= 6)
    assert loud(logs)[:2] == [
        ("coordinator_unavailable", "warning"),
        ("coordinator_available", "warning"),
    ]
    assert {entry["noticed_by"] for entry in logs} == {"heartbeat"}


async def test_a_membership_that_is_removed_while_its_heartbeat_fails_silences_nobody() -> None:
    server = Server(lambda _count, _member: raise_away())
    async with beating(server) as heartbeat:
        member = membership("m")
        heartbeat.add(member)
        await wait_until(lambda: len(server.beats) >= 2)
        heartbeat.remove(member)
        beats = len(server.beats)
        with capture_logs() as logs:
            await wait_until(lambda: heartbeat._availability._logged is None)
            heartbeat._availability.state_of("calls").lost(OSError("gone"))
        assert loud(logs) == [("coordinator_unavailable", "warning")]
        assert len(server.beats) <= beats + 1


async def test_a_fault_of_the_threads_own_loop_ends_it_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(lambda _count, _member: ALIVE)
    monkeypatch.setattr("forebay.coordinator.server.heartbeat.AGAIN_SECONDS", 0.01)
    async with beating(server) as heartbeat:
        broken: list[int] = []
        look = heartbeat._has_loop_stalled

        def raises_twice(now: float) -> bool:
            if len(broken) < 2:
                broken.append(1)
                raise ValueError(SECRET)
            return look(now)

        monkeypatch.setattr(heartbeat, "_has_loop_stalled", raises_twice)
        heartbeat.add(membership("m"))
        await wait_until(lambda: len(server.beats) >= 2)
        assert len(broken) == 2


async def test_a_thread_that_could_not_start_or_has_ended_is_started_by_the_next_membership(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(lambda _count, _member: ALIVE)
    async with beating(server) as heartbeat:

        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError):
                heartbeat.add(membership("first"))
        ended = threading.Thread(target=lambda: None)
        ended.start()
        ended.join()
        heartbeat._thread = ended
        heartbeat.add(membership("second"))
        await wait_until(lambda: set(server.beats) == {"first", "second"})


async def test_a_stalled_loop_and_its_turning_again_are_said_once_each_and_equally_loud() -> None:
    async with beating(Server(lambda _count, _member: ALIVE)) as heartbeat:
        with capture_logs() as logs:
            for asked_at in (0.0, 0.0, None, None):
                heartbeat._unanswered_since = asked_at
                heartbeat._has_loop_stalled(SETTINGS.loop_stall_seconds + 1)
    assert loud(logs) == [("event_loop_stalled", "warning"), ("event_loop_turns_again", "warning")]


async def test_a_loop_that_stays_asked_is_found_stalled_and_its_members_are_not_renewed() -> None:
    server = Server(lambda _count, _member: ALIVE)
    async with beating(server) as heartbeat:
        heartbeat._unanswered_since = boot_seconds() - SETTINGS.loop_stall_seconds - 1
        with capture_logs() as logs:
            heartbeat.add(membership("m"))
            await wait_until(lambda: heartbeat._is_stalled)
            assert server.beats == []
            heartbeat._unanswered_since = None
            await wait_until(lambda: "m" in server.beats)
    assert loud(logs) == [("event_loop_stalled", "warning"), ("event_loop_turns_again", "warning")]


@pytest.mark.parametrize("then", ["joins again", "goes on", "closes"])
async def test_a_loop_that_nobody_asked_to_turn_for_long_is_no_stalled_one(
    monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    server = Server(lambda _count, _member: ALIVE)
    with capture_logs() as logs:
        async with beating(server) as heartbeat:
            first = membership("first")
            heartbeat.add(first)
            await wait_until(lambda: server.beats)
            if then != "goes on":
                heartbeat.remove(first)  # nobody's heartbeat is due from now on
            later = SETTINGS.loop_stall_seconds + 100
            monkeypatch.setattr(
                "forebay.coordinator.server.heartbeat.boot_seconds",
                lambda: boot_seconds() + later,
            )
            if then == "joins again":
                heartbeat.add(membership("second"))
                await wait_until(lambda: "second" in server.beats)
            elif then == "goes on":  # as where the machine slept
                beats = len(server.beats)
                await wait_until(lambda: len(server.beats) > beats + 1)
    stood_still = [("heartbeats_stood_still", "warning")]
    assert loud(logs) == (stood_still if then == "goes on" else [])


def test_a_loop_that_was_closed_without_closing_us_is_said_and_renews_nothing_more() -> None:
    server = Server(lambda _count, _member: ALIVE)

    async def leave_open() -> Heartbeat:
        client: Any = server
        heartbeat = Heartbeat(client, SETTINGS, Availability(ADDRESS), Libraries(), Fresh)
        heartbeat.add(membership("m"))
        return heartbeat

    with capture_logs() as logs:
        heartbeat = asyncio.run(leave_open())
        assert heartbeat._thread is not None
        heartbeat._thread.join(10.0)
        assert not heartbeat._thread.is_alive()
    assert loud(logs) == [("event_loop_closed", "warning")]


async def test_a_server_that_is_away_for_the_heartbeat_alone_is_seen(redis_url: str) -> None:
    async with FaultyProxy(redis_url) as proxy:
        settings = MemberSettings(ttl_seconds=60.0)
        async with forebay.connect(redis_url, settings) as requests:
            heartbeat: Any = requests._server.node.heartbeat
            heartbeat._client.close()
            heartbeat._client = open_sync(parse_url(proxy.url))
            with capture_logs() as logs:
                proxy.refuse()
                await requests.register(MODEL, "mine", 1)
                await wait_until(lambda: len(logs) == 1)
                lease = await soon(requests.acquire(item()))
                await soon(requests.release(lease, forebay.SUCCESS))
                await proxy.accept()
                await wait_until(lambda: len(logs) == 2)
    assert loud(logs) == [
        ("coordinator_unavailable", "warning"),
        ("coordinator_available", "warning"),
    ]
    assert {entry["noticed_by"] for entry in logs} == {"heartbeat"}
