"""The subscriber: one connection per process and server that receives wake-ups.

A message is a hint; the state of the shard is the truth (design 06, *Wake-ups*).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable
from forebay.coordinator.logs import Logger
from forebay.coordinator.server.availability import ConnectionState
from forebay.coordinator.server.refusals import is_passing
from forebay.coordinator.server.slots import read_moved, slot_of
from forebay.coordinator.server.wire import Wire, open_wire
from forebay.coordinator.supervision import MOST_DOUBLINGS, Background, Guard, pause_seconds

_SUBSCRIBED: Final = frozenset({b"subscribe", b"ssubscribe"})
_MESSAGES: Final = frozenset({b"message", b"smessage"})

log = Logger("forebay.wakeups")


@dataclass(slots=True, kw_only=True)
class _Listener:
    on_message: Callable[[bytes], None]
    on_resumed: Callable[[], None]
    on_moved: Callable[[], None]
    confirmed: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Subscriber:
    """Hands each channel's messages to its listener, and reconnects by itself.

    Args:
        client: whose pool makes the connection.
        state: told when the connection is lost and when it is back.
        connect_timeout_seconds: bound of one attempt to connect, login included.
        most_doublings: how often the pause between two attempts is doubled.
        is_sharded: whether the server is a node of a cluster, which has the channels of its own
            slots alone.
    """

    def __init__(
        self,
        client: aioredis.Redis,
        state: ConnectionState,
        connect_timeout_seconds: float,
        most_doublings: int = MOST_DOUBLINGS,
        *,
        is_sharded: bool = False,
    ) -> None:
        self._sharded = "S" if is_sharded else ""
        self._client = client
        self._state = state
        self._connect_timeout_seconds = connect_timeout_seconds
        self._most_doublings = most_doublings
        self._guard = Guard(log)
        self._listeners: dict[bytes, _Listener] = {}
        self._wire: Wire | None = None
        self._reconnecting = Background(
            "forebay-wakeups", self._reconnect, self._guard, done=self._reconnected
        )
        self._failures = 0
        self._connecting = asyncio.Lock()  # two first subscribers would open two connections
        self._unanswered_since: float | None = None  # loop time of a SUBSCRIBE
        self._is_closed = False

    @property
    def channels(self) -> frozenset[str]:
        """The channels that somebody listens on."""
        return frozenset(channel.decode() for channel in self._listeners)

    async def subscribe(
        self,
        channel: str,
        on_message: Callable[[bytes], None],
        on_resumed: Callable[[], None],
        on_moved: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen on a channel; returns once the server has confirmed it.

        Args:
            channel: its name.
            on_message: told each message.
            on_resumed: told when listening goes on after a gap, in which messages may be lost.
            on_moved: told when another node of the cluster has the channel.

        Raises:
            RedisError, OSError: the server could not be reached, or another node has the channel.
            ConfigurationError: its user may not listen on the channel.
            CoordinatorUnavailable: the subscriber was closed.
        """
        now = asyncio.get_running_loop().time()
        since = self._unanswered_since
        if since is not None and now - since >= self._connect_timeout_seconds:
            # An earlier SUBSCRIBE is still unanswered, so this connection answers none.
            self.drop("the subscriber's connection was silent")
        listener = _Listener(on_message=on_message, on_resumed=on_resumed, on_moved=on_moved)
        self._listeners[channel.encode()] = listener
        if self._wire is not None:
            self._ask_for(self._wire, channel)
        else:
            await self._connect()
        await listener.confirmed

    def unsubscribe(self, channel: str) -> None:
        """Stop listening on a channel."""
        if self._listeners.pop(channel.encode(), None) and self._wire is not None:
            self._wire.write(f"{self._sharded}UNSUBSCRIBE", channel)

    async def close(self) -> None:
        """Stop listening."""
        self._is_closed = True
        try:
            await self._reconnecting.stop()
        finally:
            wire, self._wire = self._wire, None
            if wire is not None:
                wire.close()
            self._state.forget()

    def drop(self, why: str) -> None:
        """Close the connection, which may be a dead one, and open another."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
            self._on_lost(RedisConnectionError(why))

    def _ask_for(self, wire: Wire, *channels: str | bytes) -> None:
        if self._unanswered_since is None:
            self._unanswered_since = asyncio.get_running_loop().time()
        if not self._sharded:
            wire.write("SUBSCRIBE", *channels)
            return
        for channel in channels:  # one command names channels of one slot alone
            wire.write("SSUBSCRIBE", channel)

    async def _connect(self) -> None:
        async with asyncio.timeout(self._connect_timeout_seconds), self._connecting:
            if self._wire is not None:
                return
            wire = await open_wire(self._client, self._on_message, self._on_lost)
            if self._is_closed:  # meanwhile
                wire.close()
                raise CoordinatorUnavailable("the coordinator was closed; connect anew.")
            self._wire = wire
            self._unanswered_since = None
            if self._listeners:
                self._ask_for(wire, *self._listeners)
            else:
                self._state.back()  # nothing will be confirmed

    def _on_message(self, message: Any) -> None:
        self._unanswered_since = None
        if not isinstance(message, list):  # an error reply, such as a channel that ACL forbids
            self._refuse(message)
            return
        kind, channel, payload = message
        listener = self._listeners.get(channel)
        if kind in _SUBSCRIBED:
            self._failures = 0
            self._state.back()
        if listener is None:
            return
        if kind in _MESSAGES:
            if not self._guard.call(listener.on_message, payload):
                self._guard.call(listener.on_resumed)  # what it said is asked for instead
        elif kind == b"sunsubscribe":  # not asked for: the listener would be gone
            del self._listeners[channel]
            self._guard.call(listener.on_moved)
        elif kind in _SUBSCRIBED:
            if listener.confirmed.done():
                self._guard.call(listener.on_resumed)
            else:
                listener.confirmed.set_result(None)

    def _refuse(self, error: Any) -> None:
        if isinstance(error, ResponseError) and is_passing(error):
            self._take_passing(error)
            return
        log.warning("subscriber_refused", error=str(error)[:200])
        for refused in self._listeners.values():
            if not refused.confirmed.done():
                refused.confirmed.set_exception(
                    ConfigurationError(
                        f"the server refused to let this user listen ({error}); grant it"
                        " &fb:* +@pubsub, or name another user in the URL."
                    )
                )

    def _take_passing(self, error: ResponseError) -> None:
        """Tell the listeners of a slot that another node has; else ask again for all channels."""
        moved = read_moved(error)
        if moved is None:
            self.drop(str(error))
            return
        for channel, listener in list(self._listeners.items()):
            if slot_of(channel.decode()) != moved.slot:
                continue
            if listener.confirmed.done():
                del self._listeners[channel]
                self._guard.call(listener.on_moved)
            else:
                listener.confirmed.set_exception(error)

    def _on_lost(self, error: Exception) -> None:
        self._wire = None
        self._state.lost(error)
        self._reconnecting.start()

    async def _reconnect(self) -> None:
        while self._wire is None and not self._is_closed:
            if self._failures:
                await asyncio.sleep(pause_seconds(self._failures, self._most_doublings))
            self._failures += 1  # until a subscription is confirmed
            try:
                await self._connect()
            except (RedisError, OSError, CoordinatorUnavailable) as error:
                self._state.lost(error)

    def _reconnected(self) -> None:
        if self._wire is None:  # lost again, before the task had ended
            self._reconnecting.start()
