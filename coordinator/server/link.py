"""A connection for calls of scripts, which is opened anew until it works.

Rules: design 06, *Where it runs*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from forebay.contracts.errors import ForebayError
from forebay.coordinator.scripts.composing import Script
from forebay.coordinator.server.availability import ConnectionState
from forebay.coordinator.server.connections import CONNECT_TIMEOUT_SECONDS
from forebay.coordinator.server.node import Node
from forebay.coordinator.server.place import Place
from forebay.coordinator.server.refusals import forbidden, is_passing, may_be_of_other_code, refusal
from forebay.coordinator.server.wire import Wire, open_wire
from forebay.coordinator.supervision import MOST_DOUBLINGS, Background, Guard, pause_seconds


class Link:
    """One connection to a server that has some scripts as functions.

    It keeps no calls: the session that writes to ``wire`` does.

    Args:
        place: tells which server it is.
        scripts: what will be called.
        name: of the task that repairs the connection.
        guard: logs what a repair raises.
        state: told when the connection is lost and when it is back.
        timeout_seconds: bound of one try to open it.
        most_doublings: how often the pause between two tries is doubled, see `pause_seconds`.
        on_reply: told each reply; an error reply comes as redis-py's exception.
        on_open: awaited in each repair when the connection is open, before it may be used.
        on_refused: told what the server refuses for good; the repair ends.
        on_repaired: told that a repair has ended, well or not.
        on_lost: told that an open connection has ended by itself or was dropped.

    Attributes:
        place: tells which server it is.
        wire: the open connection; None where there is none.
        names: the names that functions have there, by their names in the scripts.
        failures: how many there were in a row; the next repair pauses longer with each.
        last_error: why the last one failed, for a message.
        state: whether it is lost.
        repairing: the repair; it is running while one is under way or is to be tried again.
    """

    def __init__(
        self,
        place: Place,
        scripts: Sequence[Script],
        *,
        name: str,
        guard: Guard,
        state: ConnectionState,
        timeout_seconds: float,
        most_doublings: int = MOST_DOUBLINGS,
        on_reply: Callable[[Any], None],
        on_open: Callable[[], Awaitable[None]],
        on_refused: Callable[[ForebayError], None],
        on_repaired: Callable[[], None],
        on_lost: Callable[[Exception], None],
    ) -> None:
        self.wire: Wire | None = None
        self.failures = 0
        self.last_error = ""
        self.state = state
        self.place = place
        self.names: Mapping[str, str] = {}
        self._node: Node | None = None
        self._trying: asyncio.Timeout | None = None
        self._scripts = scripts
        self._timeout_seconds = timeout_seconds
        self._most_doublings = most_doublings
        self._on_reply = on_reply
        self._on_open = on_open
        self._on_refused = on_refused
        self._on_lost = on_lost
        self.repairing = Background(name, self._make_whole, guard, done=on_repaired)

    @property
    def node(self) -> Node:
        """The server of the open connection, or of the last one; before it, as the place tells."""
        return self.place.node if self._node is None else self._node

    def repair(self) -> None:
        """Open the connection where there is none, and make it ready for use."""
        self.repairing.start()

    def fail(self, error: Exception) -> None:
        """Note that a call was not answered, and repair the connection."""
        self._note(error)
        self.repair()

    def answered(self) -> None:
        """Note that a call was answered."""
        self.failures = 0
        self.state.back()

    def drop(self, why: str) -> None:
        """Close the connection, and report it as lost."""
        wire, self.wire = self.wire, None
        if wire is not None:
            wire.close()
            self._on_lost(RedisConnectionError(why))

    def drop_after(self, reply: Any) -> None:
        """Close the connection, as the server sent a reply that answers no call."""
        if isinstance(reply, ResponseError):
            self.place.note(reply)
        self.drop(f"{reply!r:.200}")

    def leave(self) -> bool:
        """Close the connection, and end a try to open it, where another server has the shard now.

        Returns:
            Whether that was so.
        """
        wire, node = self.wire, self._node
        if wire is not None:
            has_left = not self.place.serves(wire.peer)
        else:
            has_left = node is not None and not self.place.has(node)
        if not has_left:
            return False
        if self._trying is not None:  # that server may be silent, and hold the try up
            self._trying.reschedule(asyncio.get_running_loop().time())
        self.drop("another server has the shard now")
        return True

    async def stop(self) -> None:
        """End a repair for good."""
        await self.repairing.stop()

    async def _make_whole(self) -> None:
        while True:
            try:
                if self.failures:
                    await asyncio.sleep(pause_seconds(self.failures, self._most_doublings))
                await self._try()
            except ForebayError as error:
                self._on_refused(error)
                return
            except (RedisError, OSError) as error:
                self.place.note(error)
                self._note(error)
                self.drop(str(error))
            except (Exception, asyncio.CancelledError) as error:
                # It is logged and tried again.
                if self._node is not None:
                    self._node.libraries.doubt()
                self.last_error = f" ({type(error).__qualname__})"
                self.drop(str(error))
                raise
            else:
                if self.wire is not None:
                    return
                self.failures += 1  # it was dropped meanwhile

    async def _try(self) -> None:
        # A server that accepts and says nothing must not hold up the next try for ever.
        async with asyncio.timeout(self._timeout_seconds) as trying:
            self._trying = trying
            try:
                if self.wire is None:
                    self.wire = await self._open()
                await self._on_open()
            finally:
                self._trying = None

    async def _open(self) -> Wire:
        try:
            self._node = None
            self._node = node = await self.place.find()
            if self.failures:  # idle connections may lead to the server that was lost
                await node.patient.connection_pool.disconnect(inuse_connections=False)
            await node.libraries.ensure(node.patient, self._scripts)
            self.names = node.libraries.names
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                return await open_wire(node.patient, self._on_reply, self._lost)
        except NoPermissionError as error:
            raise forbidden(error) from error

    def _lost(self, error: Exception) -> None:
        self.wire = None
        self.place.note(error)
        self._on_lost(error)

    def _note(self, error: Exception) -> None:
        self.failures += 1
        self.last_error = f" ({error!s:.200})" if str(error) else ""
        self.state.lost(error)


async def call_once(
    node: Node,
    script: Script,
    keys: Sequence[str],
    arguments: Sequence[str | int | bytes],
    *,
    is_release: bool = False,
) -> Any:
    """Call a script that the server has as a function, over a connection of the client's pool.

    An error that is not the script's has its library read again: where that was replaced, the call
    may be made anew.

    Args:
        node: the server.
        script: what is called.
        keys: its KEYS.
        arguments: its ARGV.
        is_release: whether it only releases, and so runs in a server without memory.

    Raises:
        RedisError, OSError: no answer; the call may or may not have been carried out.
        NotAMemberError: the shard does not know the member.
        CoordinatorError: the script refused.
    """
    client, libraries = node.patient, node.libraries
    function = libraries.function(script)
    name = libraries.freeing_function(script) if is_release else function
    try:
        reply = await client.fcall(name, len(keys), *keys, *arguments)
    except ResponseError as error:
        if may_be_of_other_code(error):
            libraries.doubt()
            await libraries.ensure(client, [script])
        if is_passing(error) or libraries.function(script) != function:
            raise
        raise refusal(script, keys, error) from error
    return reply
