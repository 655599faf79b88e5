"""``redis+sentinel://``: members follow a failover under load, and the books agree afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

import forebay
from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.server.embedded_files import find_server_binary
from tests.contract.chat_domain import CHAT, MODEL, item
from tests.support import wait_until
from tests.support_scene import Controller

HOST = "127.0.0.1"
SETTINGS = forebay.MemberSettings(ttl_seconds=3.0)
SERVICE = "main"


def free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind((HOST, 0))
        port: int = reserved.getsockname()[1]
    return port


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A primary with a replica, watched by a Sentinel."""

    url: str
    process: subprocess.Popen[bytes]
    primary: redis.Redis
    replica: redis.Redis

    def kill_primary(self) -> None:
        """Kill the primary while calls are under way, and let its replica miss no write.

        What a replica missed is lost, as with any server (README), and another matter.
        """
        self.primary.client_pause(60_000, all=False)
        assert self.primary.wait(1, 30_000) == 1
        self.process.send_signal(signal.SIGKILL)


async def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    binary = str(find_server_binary())
    primary, replica, sentinel = free_port(), free_port(), free_port()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"port {sentinel}\nbind {HOST}\ndir {tmp_path}\n"
        f"sentinel monitor {SERVICE} {HOST} {primary} 1\n"
        f"sentinel down-after-milliseconds {SERVICE} 500\n"
        f"sentinel failover-timeout {SERVICE} 5000\n"
    )
    with contextlib.ExitStack() as stack:

        def started(*words: str | int) -> subprocess.Popen[bytes]:
            log = stack.enter_context((tmp_path / "log").open("ab"))
            process = subprocess.Popen([binary, *map(str, words)], stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        def served(port: int, *more: str | int) -> subprocess.Popen[bytes]:
            folder = tmp_path / str(port)
            folder.mkdir()
            return started("--port", port, "--bind", HOST, "--dir", str(folder), *more)

        first = served(primary, "--repl-diskless-sync-delay", 0)
        served(replica, "--replicaof", HOST, primary)
        started(str(conf), "--sentinel")
        client = stack.enter_context(redis.Redis(host=HOST, port=replica))
        teller = stack.enter_context(redis.Redis(host=HOST, port=sentinel))

        async def is_whole() -> bool:
            if not (await answers(client) and await answers(teller)):
                return False
            told = teller.execute_command("SENTINEL", "REPLICAS", SERVICE)
            return client.info("replication").get("master_link_status") == "up" and bool(told)

        asyncio.run(wait_until(is_whole, timeout=30))
        url = f"redis+sentinel://{HOST}:{sentinel}/{SERVICE}"
        own = stack.enter_context(redis.Redis(host=HOST, port=primary))
        yield Watched(url=url, process=first, primary=own, replica=client)


async def test_members_follow_a_failover_under_load(watched: Watched) -> None:
    async with (
        forebay.connect(watched.url, SETTINGS) as one,
        forebay.connect(watched.url, SETTINGS) as other,
    ):
        for requests in (one, other):
            await requests.register(MODEL, "main", 4)
        granted = {"before": 0, "after": 0}
        phase = "before"

        async def call(requests: Controller) -> None:
            while True:
                with contextlib.suppress(forebay.CoordinatorError):
                    lease = await requests.acquire(item())
                    granted[phase] += 1
                    await requests.release(lease, forebay.SUCCESS)
                await asyncio.sleep(0)

        callers = [asyncio.create_task(call(requests)) for requests in (one, other) * 4]
        await wait_until(lambda: granted["before"] > 100)
        watched.kill_primary()

        async def is_promoted() -> bool:
            try:
                role: str = watched.replica.info("replication")["role"]
            except redis.ConnectionError:  # it is being promoted, and closes its connections
                return False
            return role == "master"

        await wait_until(is_promoted, timeout=60)
        phase = "after"
        await wait_until(lambda: granted["after"] > 100, timeout=60)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

        async def agrees() -> bool:
            try:
                seen = await one.pressure.snapshot(CHAT)
                return seen.in_flight_count == 0 and (await one.pressure.audit(MODEL)).ok
            except forebay.CoordinatorUnavailable:  # the Sentinel still names the old primary
                return False

        await wait_until(agrees, timeout=30)


async def test_the_url_of_a_sentinel_itself_is_answered_with_the_form_to_write(
    watched: Watched,
) -> None:
    itself = watched.url.replace("redis+sentinel", "redis").replace(f"/{SERVICE}", "")
    with pytest.raises(ConfigurationError, match=r"redis\+sentinel://host:port"):
        async with forebay.connect(itself):
            pass
