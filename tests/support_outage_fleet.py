"""Members behind one proxy each, which lose their server together (docs/adr/0024)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import forebay
from forebay.coordinator.requests.outage_phases import Holding, Sharing
from tests.contract.chat_domain import MODEL, item
from tests.support_outages import tried
from tests.support_proxy import FaultyProxy
from tests.support_scene import AIMD, Controller

CAP = 5
TTL_SECONDS = 0.6


def settings(
    mode: Literal["wait", "local_share"], ttl_seconds: float = TTL_SECONDS
) -> forebay.MemberSettings:
    return forebay.MemberSettings(
        ttl_seconds=ttl_seconds,
        call_timeout_seconds=0.5,
        recheck_seconds=0.1,
        on_unavailable=mode,
    )


@dataclass(kw_only=True)
class Fleet:
    """Members behind one proxy each, and how many calls they make at once."""

    url: str
    proxies: list[FaultyProxy] = field(default_factory=list)
    members: list[Controller] = field(default_factory=list)
    running: int = 0
    most: int = 0
    served: int = 0
    degraded: int = 0
    is_back: bool = False
    used_by_late: int = 0

    def lose_server(self, how: str) -> None:
        for proxy in self.proxies:
            proxy.refuse() if how == "refuses" else proxy.stall()

    async def find_server(self) -> None:
        for proxy in self.proxies:
            proxy.flow()
            await proxy.accept()
        self.is_back = True

    def note_late(self) -> None:
        """Note the shares of members still away when another asks the server without a bound."""
        on = [local for local in self.locals() if local.is_on]
        if self.is_back and len(on) < len(self.members):
            late = [_share_of_cap(one.phase) for one in on]
            self.used_by_late = max(self.used_by_late, sum(late))

    async def call(self, member: Controller) -> None:
        """Call the provider once, for less than a lease outlives its server."""
        with contextlib.suppress(forebay.CoordinatorUnavailable):
            lease = await member.acquire(item())
            self.note_late()
            self.running += 1
            self.most = max(self.most, self.running)
            self.served += 1
            self.degraded += lease.degraded
            await asyncio.sleep(0.02)
            self.running -= 1
            await member.release(lease, forebay.SUCCESS)

    async def call_on(self, member: Controller) -> None:
        while True:
            self.note_late()
            await self.call(member)
            await asyncio.sleep(0)

    def shares(self) -> list[int]:
        told = [local.watch.latest for local in self.locals()]
        return [one[0].of(CAP) if one else 0 for one in told]

    def locals(self) -> list[Any]:
        shards: list[Any] = [member._shards[MODEL] for member in self.members]
        return [shard.outages._local for shard in shards]


def _share_of_cap(phase: Any) -> int:
    """Return the share of a member that is still away; 0 of one that is not, or was told none."""
    is_away = isinstance(phase, Holding | Sharing) and phase.allowance is not None
    return phase.allowance.share.of(CAP) if is_away else 0


async def _connected(
    stack: contextlib.AsyncExitStack, url: str, member: forebay.MemberSettings
) -> Controller:
    return await stack.enter_async_context(forebay.connect(url, member))


@contextlib.asynccontextmanager
async def open_fleet(
    url: str,
    mode: Literal["wait", "local_share"],
    count: int,
    cap: int = CAP,
    *,
    ttl_seconds: float = TTL_SECONDS,
) -> AsyncIterator[Fleet]:
    fleet = Fleet(url=url)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(count):
            proxy = await stack.enter_async_context(FaultyProxy(url))
            member = await tried(partial(_connected, stack, proxy.url, settings(mode, ttl_seconds)))
            await tried(partial(member.register, MODEL, f"m{number}", cap, AIMD))
            fleet.proxies.append(proxy)
            fleet.members.append(member)
        yield fleet
        await fleet.find_server()
