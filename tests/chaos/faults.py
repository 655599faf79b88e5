"""Injects each kind of fault, and notes its permitted losses."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from arq.constants import job_key_prefix

from forebay.coordinator.keys import ShardKeys, pool_shard, request_shard
from forebay.coordinator.tasks.administration import set_pool_state
from tests.chaos.caller import CAP
from tests.chaos.fleet import TTL_SECONDS, Member
from tests.chaos.losses import StateLoss
from tests.chaos.observers import ALL, LossPeriod
from tests.chaos.pipes import Pipe
from tests.chaos.scene import (
    INTERVAL_SECONDS,
    PATIENCE_SECONDS,
    POOL,
    RUNS_POOL,
    SHARD,
    TENANTS,
    USUAL_TRUTH,
    Scene,
)
from tests.chaos.schedule import Fault
from tests.chaos.servers import Servers

Inject = Callable[[Scene, Fault], Awaitable[None]]

HARMLESS_STOP_SECONDS: Final = TTL_SECONDS - INTERVAL_SECONDS - 0.3
"""The last heartbeat before a stop may be an interval old."""
HARMLESS_CUT_SECONDS: Final = INTERVAL_SECONDS - 0.3
"""A member without a subscriber for an interval is expired early."""

LONGEST_PAUSE_SECONDS: Final = 1.0
"""Of a member that connects again."""


async def inject(scene: Scene, fault: Fault) -> None:
    """Inject a fault, and return when it is over."""
    began = time.monotonic()
    try:
        await _INJECT[fault.kind](scene, fault)
    finally:
        ended = time.monotonic()
        scene.under_way.append((began, ended))
        scene.note(fault.kind, began, ended, fault.number)


# -- processes


def _killed(*roles: str) -> Inject:
    async def inject(scene: Scene, fault: Fault) -> None:
        scene.fleet.kill(_victim(scene, fault, *roles))

    return inject


def _stopped(*roles: str) -> Inject:
    async def inject(scene: Scene, fault: Fault) -> None:
        victim = _victim(scene, fault, *roles)
        async with scene.may_lose(victim.name, HARMLESS_STOP_SECONDS):
            await scene.fleet.stop(victim, fault.seconds)

    return inject


async def _caller_killed(scene: Scene, fault: Fault) -> None:
    """Kill a caller; the fault is over once the process that takes its place has called."""
    victim = _victim(scene, fault, "caller")
    killed = victim.process
    scene.fleet.kill(victim)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while victim.process is killed or not scene.fleet.has_called(victim):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(0.1)


async def _caller_blocked(scene: Scene, fault: Fault) -> None:
    victim = _victim(scene, fault, "caller")
    if not scene.fleet.has_called(victim):
        return  # it has just begun, and nothing of it could be blocked
    (scene.fleet.folder / "block").write_text(str(fault.seconds))
    async with scene.may_lose(victim.name, math.inf):  # its heartbeat goes on
        victim.process.send_signal(signal.SIGUSR1)
        await asyncio.sleep(fault.seconds)


async def _worker_blocked(scene: Scene, fault: Fault) -> None:
    await scene.enqueue("blocker", fault.seconds, f"blocker-{fault.number}")
    await asyncio.sleep(fault.seconds)


def _victim(scene: Scene, fault: Fault, *roles: str) -> Member:
    members = scene.fleet.of(*roles)
    return members[fault.victim % len(members)]


# -- connections


async def _cut(scene: Scene, fault: Fault) -> None:
    _cut_members(scene, [_victim(scene, fault, "worker", "cells", "caller", "driver")])


async def _all_cut(scene: Scene, _fault: Fault) -> None:
    _cut_members(scene, scene.fleet.members)


def _cut_members(scene: Scene, members: list[Member]) -> None:
    now = time.monotonic()
    for member in members:
        member.pipe.cut()
        scene.away.append(LossPeriod(now, now + LONGEST_PAUSE_SECONDS, member.name))


def _pipe_fault(begin: Callable[[Pipe], None], harmless_seconds: float) -> Inject:
    async def inject(scene: Scene, fault: Fault) -> None:
        victim = _victim(scene, fault, "worker", "cells", "caller", "driver")
        async with scene.may_lose(victim.name, harmless_seconds):
            begin(victim.pipe)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                victim.pipe.flow()

    return inject


# -- the server


def _server_fault(
    act: Callable[[Servers, Fault], Awaitable[Any]], harmless_seconds: float
) -> Inject:
    async def inject(scene: Scene, fault: Fault) -> None:
        async with scene.server_lock, scene.may_lose(ALL, harmless_seconds):
            await act(scene.servers, fault)

    return inject


async def _functions_flushed(scene: Scene, _fault: Fault) -> None:
    async with scene.server_lock:
        await asyncio.to_thread(scene.servers.primary.client.function_flush)


# -- the server's state


def _key_deleted(*shards: ShardKeys) -> Inject:
    async def inject(scene: Scene, fault: Fault) -> None:
        async with scene.server_lock:
            client = scene.servers.primary.client
            keys = [key for shard in shards for key in shard.all]
            there = [key for key in keys if await asyncio.to_thread(client.exists, key)]
            if there:
                key, began = there[fault.victim % len(there)], time.monotonic()
                await asyncio.to_thread(client.delete, key)
                scene.losses.append(StateLoss(begin=began, end=time.monotonic()))
                scene.note("deleted", began, key)

    return inject


async def _payload_deleted(scene: Scene, fault: Fault) -> None:
    """Delete the payload of a job that waits or runs; one that waits must end as lost."""
    async with scene.server_lock:
        client = scene.servers.primary.client
        keys: Any = await asyncio.to_thread(client.keys, f"{job_key_prefix}i*")
        if keys:
            job = sorted(keys)[fault.victim % len(keys)].decode().removeprefix(job_key_prefix)
            scene.without_payload.add(job)
            await asyncio.to_thread(client.delete, f"{job_key_prefix}{job}")
            scene.note("deleted", time.monotonic(), job)


async def _flushed(scene: Scene, _fault: Fault) -> None:
    async with scene.server_lock:
        await scene.read_results()
        began = time.monotonic()
        had = await scene.servers.flush()
        scene.losses.append(StateLoss(begin=began, end=time.monotonic(), had=had))


async def _restarted_empty(scene: Scene, fault: Fault) -> None:
    async with scene.server_lock:
        await scene.read_results()
        async with scene.may_lose(ALL, HARMLESS_CUT_SECONDS):
            began = time.monotonic()
            had = await scene.servers.empty(fault.seconds)
            scene.losses.append(StateLoss(begin=began, end=time.monotonic(), had=had))


async def _failed_over_losing(scene: Scene, fault: Fault) -> None:
    async with scene.server_lock, scene.may_lose(ALL, HARMLESS_CUT_SECONDS):
        since = await scene.servers.fail_over(fault.seconds)
        scene.losses.append(StateLoss(begin=since, end=time.monotonic(), since=since))


# -- the provider


def _provider(**changes: Any) -> Inject:
    async def inject(scene: Scene, fault: Fault) -> None:
        await scene.truth(**changes)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            await scene.truth(**{name: USUAL_TRUTH[name] for name in changes})

    return inject


async def _limit_moved(scene: Scene, fault: Fault) -> None:
    await scene.truth(concurrency=2 + fault.victim % 11)


# -- settings


async def _cap_moved(scene: Scene, fault: Fault) -> None:
    await scene.move_cap(2 + fault.victim % (CAP - 1))


async def _weights_moved(scene: Scene, fault: Fault) -> None:
    weights = {tenant: 1 + fault.victim // 4**place % 4 for place, tenant in enumerate(TENANTS)}
    file = scene.fleet.folder / "weights"
    file.with_suffix(".new").write_text(json.dumps(weights))
    file.with_suffix(".new").replace(file)


async def _pool_limit_moved(scene: Scene, fault: Fault) -> None:
    await scene.operate(lambda: scene.tasks.set_limit("submission", 2 + fault.victim % 9))


async def _pool_paused(scene: Scene, fault: Fault) -> None:
    await scene.operate(lambda: set_pool_state(scene.connection, POOL, "paused"))
    await asyncio.sleep(fault.seconds)
    await scene.operate(lambda: set_pool_state(scene.connection, POOL, "open"))


_INJECT: Final[dict[str, Inject]] = {
    "worker_killed": _killed("worker", "cells"),
    "worker_stopped": _stopped("worker", "cells"),
    "worker_stopped_long": _stopped("worker", "cells"),
    "worker_blocked": _worker_blocked,
    "caller_killed": _caller_killed,
    "caller_stopped": _stopped("caller"),
    "caller_stopped_long": _stopped("caller"),
    "caller_blocked": _caller_blocked,
    "driver_killed": _killed("driver"),
    "driver_stopped": _stopped("driver"),
    "server_killed": _server_fault(lambda s, f: s.kill(f.seconds), HARMLESS_CUT_SECONDS),
    "server_stopped": _server_fault(lambda s, f: s.stop(f.seconds), HARMLESS_STOP_SECONDS),
    "server_stopped_long": _server_fault(lambda s, f: s.stop(f.seconds), HARMLESS_STOP_SECONDS),
    "server_failed_over": _server_fault(lambda s, _f: s.fail_over(), HARMLESS_CUT_SECONDS),
    "functions_flushed": _functions_flushed,
    "connections_cut": _cut,
    "all_connections_cut": _all_cut,
    "connections_refused": _pipe_fault(Pipe.refuse, HARMLESS_CUT_SECONDS),
    "connections_blackholed": _pipe_fault(Pipe.swallow, HARMLESS_STOP_SECONDS),
    "connections_blackholed_long": _pipe_fault(Pipe.swallow, HARMLESS_STOP_SECONDS),
    "provider_failing": _provider(error_rate=0.5),
    "provider_refusing": _provider(refusal_rate=1.0),
    "provider_slow": _provider(latency_median_seconds=1.5),
    "provider_limit_moved": _limit_moved,
    "cap_moved": _cap_moved,
    "weights_moved": _weights_moved,
    "pool_limit_moved": _pool_limit_moved,
    "pool_paused": _pool_paused,
    "request_key_deleted": _key_deleted(request_shard(SHARD)),
    "pool_key_deleted": _key_deleted(pool_shard(POOL), pool_shard(RUNS_POOL)),
    "payload_deleted": _payload_deleted,
    "server_flushed": _flushed,
    "server_restarted_empty": _restarted_empty,
    "server_failed_over_losing": _failed_over_losing,
}
