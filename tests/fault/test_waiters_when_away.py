"""Waiters and wake-ups while the server is away, and users whom it refuses.

Rules: design 06, *When Redis is away*.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import forebay
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import MODEL, item, when
from tests.support import wait_until
from tests.support_scene import Scene, open_scene, settings, soon
from tests.support_scene import item as scene_item

NEVER_SECONDS = 60.0
NEEDED = ["~fb:*", "&fb:*", "+@all"]


# -- away


def go_away(scene: Scene, how: str) -> None:
    if how == "refuses":
        scene.proxy.refuse()
    else:
        scene.proxy.stall()


async def come_back(scene: Scene) -> None:
    scene.proxy.flow()
    await scene.proxy.accept()


@pytest.mark.parametrize("how", ["refuses", "stalls"])
@pytest.mark.parametrize("wait_seconds", [0.3, None], ids=["until a deadline", "for ever"])
async def test_a_waiter_ends_when_the_server_is_away(
    redis_url: str, how: str, wait_seconds: float | None
) -> None:
    brief = settings(call_timeout_seconds=0.3, recheck_seconds=0.1)
    async with open_scene(redis_url, brief) as scene:
        await scene.fill()
        waiting = asyncio.create_task(scene.member.acquire(scene_item(wait_seconds=wait_seconds)))
        await scene.until(waiters=1)
        go_away(scene, how)
        with pytest.raises((forebay.RequestAdmissionError, forebay.CoordinatorUnavailable)):
            await soon(waiting)
        await come_back(scene)
        await scene.until(waiters=0)
        await scene.release_all()


async def test_a_lease_is_told_lost_while_the_server_is_still_away() -> None:
    lost: list[str] = []
    brief = forebay.MemberSettings(ttl_seconds=0.5, call_timeout_seconds=0.3)
    with EmbeddedServer() as server:
        async with forebay.connect(
            server.url, brief, on_lease_lost=lambda lease, _why: lost.append(lease.lease_id)
        ) as requests:
            await requests.register(MODEL, "mine", 1)
            lease = await requests.acquire(item())
            with open_sync(parse_url(server.url)) as client:
                process = client.info("server")["process_id"]
            os.kill(process, signal.SIGSTOP)
            try:
                await wait_until(lambda: lost == [lease.lease_id])
                with pytest.raises(forebay.MembershipLost):
                    requests.assert_held(lease)
            finally:
                os.kill(process, signal.SIGCONT)


async def test_a_silent_server_holds_a_cancellation_up_for_a_moment_only(redis_url: str) -> None:
    async with open_scene(redis_url, settings(call_timeout_seconds=NEVER_SECONDS)) as scene:
        await scene.fill()
        waiting = asyncio.create_task(scene.member.acquire(scene_item()))
        await scene.until(waiters=1)
        scene.proxy.stall()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(waiting)
        scene.proxy.flow()
        await scene.until(waiters=0)
        await scene.release_all()


async def test_a_dead_wake_up_connection_is_replaced(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_scene(redis_url, settings(call_timeout_seconds=0.3)) as scene:
        server: Any = scene.member._server
        monkeypatch.setattr(server.node.subscriber._wire, "write", lambda *_command: None)
        scene.client.flushall()

        async def is_served() -> bool:
            try:
                lease = await scene.member.acquire(scene_item())
            except forebay.CoordinatorUnavailable:
                return False
            return (await scene.member.release(lease, forebay.SUCCESS)).released

        await wait_until(is_served)


# -- rights


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def admin(own_server: EmbeddedServer) -> Iterator[redis.Redis]:
    with open_sync(parse_url(own_server.url)) as client:
        yield client


def url_of_user(server: EmbeddedServer, admin: redis.Redis, rules: list[str]) -> str:
    admin.execute_command("ACL", "SETUSER", "member", "reset", "on", ">pw", *rules)
    return server.url.replace("unix://", "unix://member:pw@")


async def told_rights(server: EmbeddedServer, admin: redis.Redis, lacking: list[str]) -> list[str]:
    """Return the rules that a user who lacks some is told to ask for."""
    url = url_of_user(server, admin, [*NEEDED, *lacking])
    with pytest.raises(forebay.ConfigurationError, match="grant it") as refused:
        async with forebay.connect(url, settings(call_timeout_seconds=2.0)) as requests:
            await soon(requests.register(MODEL, "main", 1))
    grant = r"grant it (.*?)(, and for task pools .*)?, or name another"
    told = re.search(grant, str(refused.value))
    assert told is not None
    return told[1].split()


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        (["-function|load"], "+function|load"),
        (["-fcall"], "+fcall"),
        (["resetchannels"], "&fb:*"),
        (["resetkeys"], "~fb:*"),
    ],
)
async def test_a_user_without_the_rights_is_told_which(
    own_server: EmbeddedServer, admin: redis.Redis, lacking: list[str], told: str
) -> None:
    assert told in await told_rights(own_server, admin, lacking)


async def test_a_user_with_the_told_rights_is_a_whole_member_and_reaches_no_other_keys(
    own_server: EmbeddedServer, admin: redis.Redis
) -> None:
    url = url_of_user(own_server, admin, await told_rights(own_server, admin, ["-fcall"]))
    admin.function_flush()
    async with forebay.connect(url, settings(call_timeout_seconds=2.0)) as requests:
        await soon(requests.register(MODEL, "main", 1))
        held = await soon(requests.acquire(item()))
        waiting = asyncio.create_task(requests.acquire(item()))
        async with await ServerConnection.open(own_server.url) as observer:
            await when(observer, lambda seen: seen.waiters == 1)
        assert (await soon(requests.release(held, forebay.SUCCESS))).released
        lease = await soon(waiting)
        assert (await requests.pressure.audit(MODEL)).ok
        assert (await soon(requests.release(lease, forebay.SUCCESS))).released
    with open_sync(parse_url(url)) as member:
        for command in (
            ("GET", "elsewhere"),
            ("SET", "elsewhere", "1"),
            ("PUBLISH", "elsewhere", "1"),
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("FUNCTION", "FLUSH"),
            ("FUNCTION", "DELETE", "another"),
            ("FUNCTION", "RESTORE", "another"),
            ("SUBSCRIBE", "elsewhere"),
            ("CONFIG", "GET", "*"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                member.execute_command(*command)
