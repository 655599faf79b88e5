"""Membership of a process in its shards, and the thread that keeps it alive (spec 06, *Members*).

The heartbeat has a thread and a connection of its own, so that user code which blocks the event
loop does not lose the process its leases; it stops renewing when the loop has not turned for
``loop_stall_seconds``. It renews and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import redis
from redis.exceptions import RedisError, ResponseError

from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS, ShardKeys
from forebay.coordinator.logs import Logger
from forebay.coordinator.scripts import FUNCTION_NOT_FOUND, script

MEMBERS_PER_SECOND: Final = 1000
"""Heartbeats per second that a shard is asked to serve at most."""

log = Logger("forebay.membership")


def boot_seconds() -> float:
    """Return seconds on a clock that runs on while the machine sleeps."""
    clock: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def member_keys(keys: ShardKeys) -> list[str]:
    """Return every key of a shard in the order of the KEYS of ``member/join`` and its heartbeat."""
    kinds = ("meta", "members", "events", "checks", "intervals", "suspects")
    first = [keys[kind] for kind in kinds]
    return [*first, *(key for key in keys.all if key not in first)]


@dataclass(slots=True, kw_only=True)
class Membership:
    """One process's place in one shard, from joining to leaving or expiry.

    Attributes:
        member_id: never used before and never used again.
        generation: the shard's generation when it joined.
        ttl_seconds: how long a heartbeat lasts; grows with the number of members.
        acknowledged_at: when the last acknowledged heartbeat was sent, in ``boot_seconds``.
        next_beat_at: when the next one is due.
        on_expired: told once, on the loop, when the shard says it is over.
    """

    member_id: str
    generation: str
    keys: ShardKeys
    ttl_seconds: float
    acknowledged_at: float
    on_expired: Callable[[Membership], None]
    next_beat_at: float = field(default=0.0)

    @property
    def remaining_seconds(self) -> float:
        """How long the last acknowledged heartbeat lasts from now."""
        return self.acknowledged_at + self.ttl_seconds - boot_seconds()

    @property
    def is_held(self) -> bool:
        """Whether the last acknowledged heartbeat is younger than the TTL."""
        return self.remaining_seconds > 0


class Heartbeat:
    """Renews the memberships of a process from a thread of its own.

    Args:
        client: a blocking client that nobody else uses.
        settings: TTL and the longest stall of the event loop that is believed to be alive.
    """

    def __init__(self, client: redis.Redis, settings: MemberSettings) -> None:
        self._client = client
        self._settings = settings
        self._memberships: dict[str, Membership] = {}
        self._changed = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()
        self._loop_turned_at = boot_seconds()

    def add(self, membership: Membership) -> None:
        """Keep a membership alive from now on."""
        membership.next_beat_at = boot_seconds() + min(1.0, membership.ttl_seconds / 3)
        self._memberships[membership.member_id] = membership
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="forebay-heartbeat", daemon=True)
            self._thread.start()
        self._changed.set()

    def remove(self, membership: Membership) -> None:
        """Stop renewing a membership."""
        self._memberships.pop(membership.member_id, None)

    async def stop(self) -> None:
        """End the thread; memberships that nobody renews expire within their TTL."""
        self._stopped = True
        self._changed.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._client.close()

    def _run(self) -> None:
        while not self._stopped:
            due = min((m.next_beat_at for m in list(self._memberships.values())), default=None)
            pause = None if due is None else max(0.0, due - boot_seconds())
            self._changed.wait(pause)
            self._changed.clear()
            self._ask_loop_to_turn()
            now = boot_seconds()
            if now - self._loop_turned_at > self._settings.loop_stall_seconds:
                log.error("event_loop_stalled", seconds=round(now - self._loop_turned_at))
                for membership in list(self._memberships.values()):
                    membership.next_beat_at = now + membership.ttl_seconds / 3
                continue
            for membership in list(self._memberships.values()):
                if membership.next_beat_at <= now and not self._stopped:
                    self._beat(membership)

    def _ask_loop_to_turn(self) -> None:
        def turned() -> None:
            self._loop_turned_at = boot_seconds()

        with contextlib.suppress(RuntimeError):  # the loop was closed without stopping us
            self._loop.call_soon_threadsafe(turned)

    def _beat(self, membership: Membership) -> None:
        sent_at = boot_seconds()
        keys = member_keys(membership.keys)
        args: list[Any] = [
            *keys,
            membership.member_id,
            str(round(membership.ttl_seconds * 1e6)),
            str(KEEP_UNUSED_SHARD_MS),
        ]
        heartbeat = script("member/heartbeat")
        try:
            try:
                reply = self._client.fcall(heartbeat.freeing_function, len(keys), *args)
            except ResponseError as error:
                if str(error) != FUNCTION_NOT_FOUND:
                    raise
                self._client.function_load(heartbeat.library, replace=True)
                reply = self._client.fcall(heartbeat.freeing_function, len(keys), *args)
        except (RedisError, OSError) as error:
            log.debug("heartbeat_failed", shard=membership.keys.tag, error=type(error).__name__)
            membership.next_beat_at = boot_seconds() + min(1.0, membership.ttl_seconds / 10)
            return
        _now_us, members = json.loads(cast("bytes", reply))
        if members == 0:
            self.remove(membership)
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(membership.on_expired, membership)
            return
        interval = max(self._settings.ttl_seconds / 3, members / MEMBERS_PER_SECOND)
        membership.ttl_seconds = 3 * interval
        membership.acknowledged_at = sent_at
        membership.next_beat_at = sent_at + interval
