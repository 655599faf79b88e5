"""Loses state of a server under load, one loss after the other, and returns the results."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.observers import CapMove, LossPeriod, ProviderCall, overruns
from tests.lost_state.fleet import CAP, PATIENCE_SECONDS, Fleet, open_fleet
from tests.lost_state.losses import NEEDS_SNAPSHOT, OF_KEYS, WHOLE, Loss
from tests.lost_state.server import LosingServer
from tests.support import wait_until
from tests.support_sentinel import watched_primary

SENTINEL: Final = "Sentinel failover with lost writes"
SENTINEL_TTL_SECONDS: Final = 3.0
OLD_OVERRIDE: Final = 10
"""The operator's cap in the file that a server is restarted on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The parameters of a run.

    Attributes:
        call_seconds: how long the provider takes for each call.
        ttl_seconds: of the members.
        losses: names of `WHOLE` and `OF_KEYS`.
    """

    call_seconds: float = 2.5
    ttl_seconds: float = 0.6
    losses: tuple[str, ...] = (*WHOLE, *OF_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The result of one loss.

    Attributes:
        loss: its name.
        was_there: whether there was something that has to come back.
        back_seconds: from the loss, or from the server's return, until audit and settings agreed.
        at: the instant of the loss.
        most: calls that the provider served at once from then to the next loss.
        over: what the observer of the provider's log says, calls of expired members left out.
        expired: how many leases members lost meanwhile.
    """

    loss: str
    was_there: bool
    back_seconds: float
    at: float
    most: int = 0
    over: tuple[str, ...] = ()
    expired: int = 0


async def run(given: Given) -> list[Seen]:
    """Lose state as given, under load; return the result of each loss.

    Raises:
        AssertionError: the shard was not as before within a minute, or no call went on.
    """
    with tempfile.TemporaryDirectory(prefix="fb-lost-") as name:
        folder = Path(name)
        with LosingServer(folder / "data") as server:
            async with open_fleet(
                server.url, folder, call_seconds=given.call_seconds, ttl_seconds=given.ttl_seconds
            ) as fleet:
                return await _lose_all(given, server, fleet)


async def _lose_all(given: Given, server: LosingServer, fleet: Fleet) -> list[Seen]:
    """Lose state in each way; the file of the old state is the first to be needed."""
    await fleet.until_full()
    if NEEDS_SNAPSHOT in given.losses:
        await fleet.set_override(OLD_OVERRIDE)
        server.write_snapshot()
    await fleet.set_override(CAP)
    began_at = time.monotonic()
    names = sorted(given.losses, key=lambda name: name != NEEDS_SNAPSHOT)
    await fleet.until_served(2 * CAP)  # all that were granted before
    ways = WHOLE | OF_KEYS
    seen = [await _lose(server, fleet, name, ways[name]) for name in names]
    await fleet.until_served(2 * CAP)  # the first began before the last loss
    calls = [call for call in fleet.calls() if call.begin > began_at]
    return list(_judge(seen, calls, fleet.losses()))


async def fail_over(given: Given) -> Seen:
    """Let a Sentinel promote a replica that misses writes, under load; return the result.

    Longer than a failover lasts, members keep what they hold: their TTL is 3 s here.
    """
    with tempfile.TemporaryDirectory(prefix="fb-lost-") as name:
        folder = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            watching = watched_primary(folder)
            watched = await asyncio.to_thread(watching.__enter__)
            stack.callback(watching.__exit__, None, None, None)
            fleet = await stack.enter_async_context(
                open_fleet(
                    watched.url,
                    folder,
                    call_seconds=given.call_seconds,
                    ttl_seconds=SENTINEL_TTL_SECONDS,
                )
            )
            await fleet.until_full()
            await fleet.set_override(CAP)
            began_at = time.monotonic()
            await fleet.until_served(2 * CAP)
            before = await fleet.until_books()
            at = time.monotonic()
            await asyncio.to_thread(watched.kill_primary_ahead)
            await wait_until(watched.is_promoted, timeout=PATIENCE_SECONDS)
            promoted_at = time.monotonic()
            back_at = await fleet.until_back(before, is_lost=True)
            await fleet.until_served(2 * CAP)
            seen = Seen(loss=SENTINEL, was_there=True, back_seconds=back_at - promoted_at, at=at)
            calls = [call for call in fleet.calls() if call.begin > began_at]
            (judged,) = _judge([seen], calls, fleet.losses())
            return judged


async def _lose(server: LosingServer, fleet: Fleet, name: str, loss: Loss) -> Seen:
    await fleet.until_full()
    before = await fleet.until_books()
    at = time.monotonic()
    server.returned_at = at
    was_there = await asyncio.to_thread(loss, server)
    try:
        back_at = await fleet.until_back(before, is_lost=was_there)
    except AssertionError as error:
        raise AssertionError(f"{name}: the shard did not come back") from error
    await fleet.until_served(CAP)  # so that too many would be seen before the next loss
    return Seen(loss=name, was_there=was_there, back_seconds=back_at - server.returned_at, at=at)


def _judge(seen: list[Seen], calls: list[ProviderCall], losses: list[LossPeriod]) -> Iterable[Seen]:
    """Add to each loss the provider's calls until the next one."""
    over = overruns(calls, [CapMove(0.0, 0.0, CAP)], losses)
    for number, one in enumerate(seen):
        until = seen[number + 1].at if number + 1 < len(seen) else float("inf")
        yield Seen(
            loss=one.loss,
            was_there=one.was_there,
            back_seconds=one.back_seconds,
            at=one.at,
            most=_most_at_once(calls, one.at, until),
            over=tuple(found.what for found in over if one.at <= found.at < until),
            expired=sum(one.at <= loss.end < until for loss in losses),
        )


def _most_at_once(calls: list[ProviderCall], begin: float, end: float) -> int:
    """Return how many calls the provider served at once at most, as some call came."""
    arrivals = [call.begin for call in calls if begin <= call.begin < end]
    return max((sum(c.begin <= at < c.end for c in calls) for at in arrivals), default=0)
