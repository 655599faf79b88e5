"""A member that dies holding leases, on a shard where nobody else asks for anything (design 06)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import forebay
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from tests.support import wait_until

TTL_SECONDS = 1.0
MODEL = forebay.ProviderModelKey(provider_name="p", model_id="m")
SETTINGS = forebay.MemberSettings(ttl_seconds=TTL_SECONDS)
HOLDER = """
import asyncio, sys, forebay
from tests.fault.test_quiet_shard import MODEL, SETTINGS
async def hold():
    async with forebay.connect(sys.argv[1], SETTINGS) as requests:
        await requests.register(MODEL, "holder", 4)
        resource = forebay.RequestResourceKey(provider_model=MODEL)
        items = [forebay.RequestAdmissionItem(resource=resource) for _ in range(4)]
        await asyncio.gather(*map(requests.acquire, items))
        print("held", flush=True)
        await asyncio.Event().wait()
asyncio.run(hold())
"""


async def test_dead_members_leases_end_though_nobody_asks(redis_url: str) -> None:
    holder = subprocess.Popen(  # noqa: ASYNC220 - over at once
        [sys.executable, "-c", HOLDER, redis_url],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in ("", *sys.path) if p)},
    )
    assert holder.stdout is not None
    try:
        async with forebay.connect(redis_url, SETTINGS) as requests:
            await requests.register(MODEL, "watcher", 4)
            assert holder.stdout.readline() == b"held\n"
            async with await ServerConnection.open(redis_url) as connection:
                pressure = RequestPressureSnapshotProvider(connection)
                assert (await pressure.global_snapshot(MODEL)).aggregate_in_flight == 4
                holder.send_signal(signal.SIGKILL)

                async def is_free() -> bool:
                    return (await pressure.global_snapshot(MODEL)).aggregate_in_flight == 0

                await wait_until(is_free, timeout=TTL_SECONDS * 4)
                assert (await pressure.audit(MODEL)).ok
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
