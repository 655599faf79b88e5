"""A server that loses state under load: the provider never sees more calls than the cap allows."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import forebay
from forebay.contracts.errors import ShardDamaged
from forebay.coordinator.keys import request_shard
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import MODEL, item
from tests.support import wait_until
from tests.support_scene import Controller
from tests.support_scripts import AIMD

CAP = 8
SETTINGS = forebay.MemberSettings(ttl_seconds=6.0)


class Provider:
    """Calls that last until the test ends them; it knows how many ran at once."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.served = 0
        self.may_end = asyncio.Event()

    async def call(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.may_end.wait()
        finally:
            self.running -= 1
            self.served += 1


async def work(requests: Controller, provider: Provider, released: list[str]) -> None:
    lease = await requests.acquire(item())
    await provider.call()
    released.append((await requests.release(lease, forebay.SUCCESS)).reason)


def empty_restart(own: EmbeddedServer, folder: Path) -> None:
    own.kill()
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    own.restart()


def flush(own: EmbeddedServer, _folder: Path) -> None:
    with open_sync(parse_url(own.url)) as client:
        client.flushall()


def evict(own: EmbeddedServer, _folder: Path) -> None:
    with open_sync(parse_url(own.url)) as client:
        client.delete(request_shard(MODEL)["leases"])


@pytest.mark.parametrize("lose", [empty_restart, flush, evict])
async def test_no_more_calls_than_the_cap_after_a_loss(
    tmp_path: Path, lose: Callable[[EmbeddedServer, Path], None]
) -> None:
    provider, released = Provider(), list[str]()
    with EmbeddedServer(tmp_path) as own:
        async with contextlib.AsyncExitStack() as stack:
            fleet = [
                await stack.enter_async_context(forebay.connect(own.url, SETTINGS))
                for _ in range(2)
            ]
            for requests in fleet:
                await requests.register(MODEL, "main", CAP, AIMD)
            calls = [
                asyncio.create_task(work(requests, provider, released))
                for requests in fleet
                for _ in range(CAP)
            ]
            await wait_until(lambda: provider.running == CAP)
            lose(own, tmp_path)
            reader = await stack.enter_async_context(await ServerConnection.open(own.url))
            looking = RequestPressureSnapshotProvider(reader)

            async def is_rebuilt() -> bool:
                try:
                    shard = await looking.global_snapshot(MODEL)
                except ShardDamaged:  # until a member's next call begins the rebuild
                    return False
                return shard.aggregate_in_flight == CAP and (await looking.audit(MODEL)).ok

            await wait_until(is_rebuilt)
            provider.may_end.set()
            await asyncio.wait_for(asyncio.gather(*calls), timeout=60)
            assert (await looking.audit(MODEL)).ok
    assert provider.most == CAP
    assert released == ["released"] * (2 * CAP)
