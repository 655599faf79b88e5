"""Injects each kind of fault, and notes what may be lost by it without being a difference."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from forebay.contracts.errors import ForebayError
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.keys import ShardKeys, pool_shard, request_shard
from forebay.coordinator.requests.operating import set_override_cap
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.operating import set_pool_state
from tests.chaos.caller import CAP, MODEL, PROVIDER
from tests.chaos.fleet import TTL_SECONDS, Fleet, Member
from tests.chaos.observers import ALL, CapMove, LossPeriod
from tests.chaos.pipes import Pipe
from tests.chaos.schedule import Fault
from tests.chaos.servers import Servers

SHARD: Final = ProviderModelKey(provider_name=PROVIDER, model_id=MODEL)
POOL: Final = "default"
TENANTS: Final = ("red", "green", "blue")
INTERVAL_SECONDS: Final = TTL_SECONDS / 3
SLACK_SECONDS: Final = 2.0
"""After a fault, until a process that lost its membership has heard of it."""
USUAL_TRUTH: Final = {
    "concurrency": 12,
    "latency_median_seconds": 0.3,
    "latency_sigma": 0.3,
    "error_rate": 0.0,
    "refusal_rate": 0.0,
    "retry_after_seconds": 0.3,
}
PATIENCE_SECONDS: Final = 30.0
"""Within which an operator's call is tried again while the server is away."""


@dataclass(eq=False, kw_only=True)
class Scene:
    """The servers and processes that faults are injected into, and a record of the faults.

    Attributes:
        own: the pipe of this process.
        lost: periods in which a process may lose its membership.
        caps: how the cap was moved.
        under_way: begin and end of each fault.
    """

    fleet: Fleet
    servers: Servers
    provider_url: str
    own: Pipe
    coordinator: Coordinator
    tasks: TaskAdmissionController
    lost: list[LossPeriod] = field(default_factory=list)
    caps: list[CapMove] = field(default_factory=list)
    under_way: list[tuple[float, float]] = field(default_factory=list)
    enqueue: Callable[..., Awaitable[None]]
    server_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextlib.asynccontextmanager
    async def may_lose(self, process: str, harmless_seconds: float) -> AsyncIterator[None]:
        """Note a period if the block takes longer than a membership bears."""
        began = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            if ended - began > harmless_seconds:
                self.lost.append(LossPeriod(began, ended + SLACK_SECONDS, process))

    async def truth(self, **changes: Any) -> None:
        """Change limits and faults of the provider."""
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.provider_url}/truth", json=changes)
            answer.raise_for_status()

    async def operate(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Repeat an operator's call until the server carries it out."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                await call()
            except ForebayError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def move_cap(self, cap: int) -> None:
        """Move the cap by an operator's override."""
        began = time.monotonic()
        await self.operate(lambda: set_override_cap(self.coordinator, SHARD, cap))
        self.caps.append(CapMove(began, time.monotonic(), cap))


Inject = Callable[[Scene, Fault], Awaitable[None]]

HARMLESS_STOP_SECONDS: Final = TTL_SECONDS - INTERVAL_SECONDS - 0.3
"""The last heartbeat before a stop may be an interval old."""
HARMLESS_CUT_SECONDS: Final = INTERVAL_SECONDS - 0.3
"""A member without a subscriber for an interval is expired early."""


async def inject(scene: Scene, fault: Fault) -> None:
    """Inject a fault, and return when it is over."""
    began = time.monotonic()
    try:
        await _INJECT[fault.kind](scene, fault)
    finally:
        scene.under_way.append((began, time.monotonic()))


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
    victim.process.send_signal(signal.SIGUSR1)
    await asyncio.sleep(fault.seconds)  # its heartbeat goes on, so it keeps its leases


async def _worker_blocked(scene: Scene, fault: Fault) -> None:
    await scene.enqueue("blocker", fault.seconds, f"blocker-{fault.number}")
    await asyncio.sleep(fault.seconds)


def _victim(scene: Scene, fault: Fault, *roles: str) -> Member:
    members = scene.fleet.of(*roles)
    return members[fault.victim % len(members)]


# -- connections


async def _cut(scene: Scene, fault: Fault) -> None:
    _victim(scene, fault, "worker", "cells", "caller", "driver").pipe.cut()


async def _all_cut(scene: Scene, _fault: Fault) -> None:
    for member in scene.fleet.members:
        member.pipe.cut()


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
    act: Callable[[Servers, Fault], Awaitable[None]], harmless_seconds: float
) -> Inject:
    async def inject(scene: Scene, fault: Fault) -> None:
        async with scene.server_lock, scene.may_lose(ALL, harmless_seconds):
            await act(scene.servers, fault)

    return inject


def _command(*words: str) -> Inject:
    async def inject(scene: Scene, _fault: Fault) -> None:
        async with scene.server_lock:
            client = scene.servers.primary.client
            await asyncio.to_thread(client.execute_command, *words)

    return inject


def _key_deleted(keys: ShardKeys) -> Inject:
    async def inject(scene: Scene, fault: Fault) -> None:
        async with scene.server_lock:
            client = scene.servers.primary.client
            there = [key for key in keys.all if await asyncio.to_thread(client.exists, key)]
            if there:
                await asyncio.to_thread(client.delete, there[fault.victim % len(there)])

    return inject


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
    await scene.operate(lambda: set_pool_state(scene.coordinator, POOL, "paused"))
    await asyncio.sleep(fault.seconds)
    await scene.operate(lambda: set_pool_state(scene.coordinator, POOL, "open"))


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
    "functions_flushed": _command("FUNCTION", "FLUSH"),
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
    "pool_key_deleted": _key_deleted(pool_shard(POOL)),
    "server_flushed": _command("FLUSHALL"),
    "server_restarted_empty": _server_fault(
        lambda s, f: s.kill(f.seconds, is_emptied=True), HARMLESS_CUT_SECONDS
    ),
    "server_failed_over_losing": _server_fault(
        lambda s, f: s.fail_over(f.seconds), HARMLESS_CUT_SECONDS
    ),
}
