"""A member of a request shard or of a pool: takes and gives back leases as its input says.

Each line of the input is ``take N`` or ``release N``, the oldest first; each line of the output
reports events of the member: ``ready``, ``granted``, ``lost`` or ``released``, with the lease.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from typing import Any, Final

import forebay
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.puller import TaskPuller
from tests.support_tasks import DONE, POOL

MODEL: Final = forebay.ProviderModelKey(provider_name="p", model_id="m")
RESOURCE: Final = forebay.RequestResourceKey(provider_model=MODEL)


def settings(ttl_seconds: float) -> forebay.MemberSettings:
    """Return settings under which no recheck makes good what a wake-up or an expiry owes."""
    return forebay.MemberSettings(
        ttl_seconds=ttl_seconds, recheck_seconds=60.0, call_timeout_seconds=30.0
    )


def _say(*words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


async def _orders() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


async def _serve_requests(url: str, cap: int, own: forebay.MemberSettings) -> None:
    held: deque[forebay.RequestAdmissionLease] = deque()
    asking: set[asyncio.Task[None]] = set()

    async def take() -> None:
        lease = await requests.acquire(forebay.RequestAdmissionItem(resource=RESOURCE))
        held.append(lease)
        _say("granted", lease.lease_id)

    async with forebay.connect(
        url, own, on_lease_lost=lambda lease, why: _say("lost", lease.lease_id, why)
    ) as requests:
        whole = forebay.RequestAdmissionConfig(initial_limits={forebay.RequestDomain.CHAT: cap})
        await requests.register(MODEL, "member", cap, config=whole)
        _say("ready")
        async for line in await _orders():
            word, count = line.split()
            for _ in range(int(count)):
                if word == b"take":
                    asking.add(asyncio.create_task(take()))
                else:
                    lease = held.popleft()
                    result = await requests.release(lease, forebay.SUCCESS)
                    _say("released", lease.lease_id, result.reason)


async def _serve_tasks(url: str, _cap: int, own: forebay.MemberSettings) -> None:
    held: deque[Any] = deque()
    slots = 0

    def start(lease: Any) -> None:
        nonlocal slots
        slots -= 1
        held.append(lease)
        _say("granted", lease.lease_id)

    async with await ServerConnection.open(url, own) as connection:
        tasks = TaskAdmissionController(
            connection, POOL, on_lease_lost=lambda lease: _say("lost", lease.lease_id)
        )
        puller = TaskPuller(
            tasks,
            free_slots=lambda: slots,
            start=start,
            expired=lambda _task_id: None,
            lost=lambda _task_id, _members: None,
            in_progress_seconds=60.0,
        )
        await tasks.set_state("open")  # any call: it makes this process a member
        _say("ready")
        async for line in await _orders():
            word, count = line.split()
            if word == b"take":
                slots += int(count)
                puller._on_change()
                continue
            for _ in range(int(count)):
                lease = held.popleft()
                result = await tasks.finish(lease, DONE)
                _say("released", lease.lease_id, result.reason)
        await tasks.close()


if __name__ == "__main__":
    serve = {"requests": _serve_requests, "tasks": _serve_tasks}[sys.argv[2]]
    asyncio.run(serve(sys.argv[1], int(sys.argv[3]), settings(float(sys.argv[4]))))
