"""The thread that keeps a process's memberships alive (design 06, *Members*).

It has a connection of its own, so that user code which blocks the event loop does not lose the
process its leases; it stops renewing when the loop has not turned for ``loop_stall_seconds``. It
renews and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final, cast

import redis
import redis.asyncio as aioredis
from redis.exceptions import RedisError, ResponseError

from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS
from forebay.coordinator.logs import Logger
from forebay.coordinator.scripts.composing import Script, script
from forebay.coordinator.server.availability import Availability, ConnectionState
from forebay.coordinator.server.libraries import Libraries
from forebay.coordinator.server.membership import Membership, boot_seconds, member_keys
from forebay.coordinator.server.refusals import may_be_of_other_code
from forebay.coordinator.supervision import Guard, in_thread, name_of

MEMBERS_PER_SECOND: Final = 1000
"""Heartbeats per second that a shard is asked to serve at most."""

STOP_SECONDS: Final = 0.2
"""A heartbeat under way has this long to end by itself when the process leaves."""
AGAIN_SECONDS: Final = 1.0
"""At most between two tries of what failed, unless a tenth of the TTL is shorter; drawn at random
from half of it on, so that members that failed together do not come back at one instant."""

log = Logger("forebay.membership")


class Heartbeat:
    """Renews the memberships of a process from a thread of its own.

    Args:
        client: a blocking client that nobody else uses.
        settings: TTL and the longest stall of the event loop that is believed to be alive.
        availability: told when heartbeats fail and when they are acknowledged again.
        libraries: of the server.
        open_client: opens an asyncio client of the server, to read a library's code again.
        on_failed: called on the event loop when a heartbeat failed; None where nobody is to know.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: MemberSettings,
        availability: Availability,
        libraries: Libraries,
        open_client: Callable[[], aioredis.Redis],
        on_failed: Callable[[], None] | None = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._availability = availability
        self._libraries = libraries
        self._open_client = open_client
        self._on_failed = on_failed
        self._guard = Guard(log)
        self._memberships: dict[str, Membership] = {}
        self._states: dict[str, ConnectionState] = {}
        self._raised: set[str] = set()
        self._changed = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()
        self._unanswered_since: float | None = None  # when the loop was asked to turn
        self._is_stalled = False

    @property
    def is_beating(self) -> bool:
        """Whether it keeps any membership alive."""
        return bool(self._memberships)

    def add(self, membership: Membership) -> None:
        """Keep a membership alive from now on."""
        membership.next_beat_at = boot_seconds() + min(1.0, membership.ttl_seconds / 3)
        state = self._availability.state_of("heartbeat", shard=membership.keys.tag)
        self._states[membership.member_id] = state
        self._memberships[membership.member_id] = membership
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="forebay-heartbeat", daemon=True)
            thread.start()
            self._thread = thread
        self._changed.set()

    def remove(self, membership: Membership) -> None:
        """Stop renewing a membership."""
        self._memberships.pop(membership.member_id, None)
        self._raised.discard(membership.member_id)
        state = self._states.pop(membership.member_id, None)
        if state is not None:
            state.forget()

    async def stop(self) -> None:
        """End the thread; memberships expire within their TTL then."""
        self._stopped = True
        self._changed.set()
        try:
            if self._thread is not None:
                await in_thread(self._thread.join, STOP_SECONDS)
                if self._thread.is_alive():  # it waits for an answer: take that away
                    self._guard.call(self._client.connection_pool.disconnect)
                    await in_thread(self._thread.join, STOP_SECONDS)
        finally:
            self._client.close()
            for membership in list(self._memberships.values()):
                self.remove(membership)

    def _run(self) -> None:
        """Send heartbeats until stopped; without this thread every membership expires."""
        while not self._stopped:
            if self._loop.is_closed():
                log.warning("event_loop_closed", remedy="close what was connected before it ends")
                return
            if not self._guard.call(self._beat_when_due):
                time.sleep(AGAIN_SECONDS)

    def _beat_when_due(self) -> None:
        due = min((m.next_beat_at for m in list(self._memberships.values())), default=None)
        pause = None if due is None else max(0.0, due - boot_seconds())
        self._changed.wait(pause)
        self._changed.clear()
        if self._stopped or self._loop.is_closed():
            return
        self._ask_loop_to_turn()
        now = boot_seconds()
        self._note_delay(
            now - min((m.next_beat_at for m in [*self._memberships.values()]), default=now)
        )
        if self._has_loop_stalled(now):
            for membership in list(self._memberships.values()):
                membership.next_beat_at = now + membership.ttl_seconds / 3
            return
        for membership in list(self._memberships.values()):
            if membership.next_beat_at <= now and not self._stopped:
                # First, so that no failure whatever leaves it due at once for ever.
                longest = min(AGAIN_SECONDS, membership.ttl_seconds / 10)
                again = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
                membership.next_beat_at = boot_seconds() + again
                self._beat_safely(membership)

    def _note_delay(self, seconds: float) -> None:
        """Warn where this thread did not run for most of a membership's TTL."""
        if seconds > self._settings.ttl_seconds / 2:
            log.warning(
                "heartbeats_stood_still",
                seconds=round(seconds, 1),
                ttl_seconds=self._settings.ttl_seconds,
                remedy="this process was stopped, or code held the interpreter's lock; raise"
                " ttl_seconds above three times as long, or run that code in another process",
            )

    def _beat_safely(self, membership: Membership) -> None:
        """Send the heartbeats that are due; a failed one is repeated and stops no other."""
        member_id = membership.member_id
        if self._guard.call(self._beat, membership):
            if member_id in self._raised:
                self._raised.discard(member_id)
                self._guard.note_recovery(name_of(self._beat))
            return
        self._raised.add(member_id)
        # Who knows how much of a reply was read: the next one comes over another connection.
        self._guard.call(self._client.connection_pool.disconnect)

    def _note_failure(self, membership: Membership, error: Exception) -> None:
        state = self._states.get(membership.member_id)
        if state is not None:
            state.lost(error)
            if membership.member_id not in self._memberships:  # removed meanwhile by the loop
                state.forget()

    def _note_success(self, membership: Membership) -> None:
        state = self._states.get(membership.member_id)
        if state is not None:
            state.back()

    def _ask_loop_to_turn(self) -> None:
        """Schedule a callback on the loop, unless an earlier one has not run yet."""

        def turned() -> None:
            self._unanswered_since = None

        if self._unanswered_since is None:
            self._unanswered_since = boot_seconds()
            with contextlib.suppress(RuntimeError):  # the loop was closed without stopping us
                self._loop.call_soon_threadsafe(turned)

    def _has_loop_stalled(self, now: float) -> bool:
        """Whether the loop has not turned for so long that its work counts as dead."""
        asked_at = self._unanswered_since
        stalled_seconds = 0.0 if asked_at is None else now - asked_at
        is_stalled = stalled_seconds > self._settings.loop_stall_seconds
        if is_stalled != self._is_stalled:
            self._is_stalled = is_stalled
            if is_stalled:
                log.warning("event_loop_stalled", seconds_without_a_turn=round(stalled_seconds))
            else:
                log.warning("event_loop_turns_again")
        return is_stalled

    def _beat(self, membership: Membership) -> None:
        sent_at = boot_seconds()
        keys = member_keys(membership.keys)
        args: list[Any] = [
            *keys,
            membership.member_id,
            str(round(membership.ttl_seconds * 1e6)),
            str(KEEP_UNUSED_SHARD_MS),
        ]
        try:
            members = self._ask(len(keys), *args)
        except Exception as error:
            if self._stopped:
                return  # its connection was taken away
            if not isinstance(error, RedisError | OSError):
                raise
            self._note_failure(membership, error)
            if self._on_failed is not None:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._on_failed)
            return
        self._note_success(membership)
        if members == 0:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(membership.on_unknown, membership)
            return
        interval = max(self._settings.ttl_seconds / 3, members / MEMBERS_PER_SECOND)
        membership.ttl_seconds = 3 * interval
        membership.acknowledged_at = sent_at
        membership.next_beat_at = sent_at + interval

    def _ask(self, *arguments: Any) -> int:
        """Send a heartbeat; return the number of members, 0 if this one is none any more."""
        heartbeat = script("member/heartbeat")
        function = self._libraries.freeing_function(heartbeat)
        try:
            return _members_in(self._client.fcall(function, *arguments))
        except (ResponseError, TypeError, ValueError) as error:
            if isinstance(error, ResponseError) and not may_be_of_other_code(error):
                raise
            asyncio.run(self._read_code_again(heartbeat))  # it was flushed, or replaced
        function = self._libraries.freeing_function(heartbeat)
        return _members_in(self._client.fcall(function, *arguments))

    async def _read_code_again(self, heartbeat: Script) -> None:
        """Find or load the heartbeat's library, on a loop of this thread; the other may stall."""
        self._libraries.doubt()
        async with self._open_client() as client:
            await self._libraries.ensure(client, [heartbeat])


def _members_in(reply: Any) -> int:
    """Return the number of members of a heartbeat's reply.

    Raises:
        TypeError, ValueError: it is no reply of a heartbeat.
    """
    _now_us, members = json.loads(cast("bytes", reply))
    return int(members)
