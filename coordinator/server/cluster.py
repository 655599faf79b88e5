"""A process's view of a cluster: one connection bundle per master, and where each shard is.

A shard's session follows its slot (design 06, *Where it runs*; docs/adr/0037): an error that may
mean that a slot is elsewhere has the nodes asked again, and then every session looks for its shard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from redis.exceptions import RedisError, ResponseError

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.logs import Logger
from forebay.coordinator.server.address import ClusterAddress, TcpAddress
from forebay.coordinator.server.availability import Availability
from forebay.coordinator.server.node import Node
from forebay.coordinator.server.refusals import connection_error, no_cluster_at
from forebay.coordinator.server.slots import SLOTS, Answer, Peer, ask_nodes, read_moved, slot_of
from forebay.coordinator.server.version import check_server
from forebay.coordinator.supervision import Background, Guard, outcome_of

log = Logger("forebay.cluster")

_NOT_SERVED: Final = "CLUSTERDOWN Hash slot not served"


class Cluster:
    """The masters of a cluster that this process uses, and which of them serves each slot.

    Args:
        address: of the cluster.
        settings: how this process takes part in the fleet.
        most_doublings: how often the pause between two tries to connect is doubled.

    Attributes:
        on_moved: each called when a slot was found to be served by another master than before.
    """

    def __init__(
        self, address: ClusterAddress, settings: MemberSettings, most_doublings: int
    ) -> None:
        self.on_moved: set[Callable[[], None]] = set()
        self._address = address
        self._settings = settings
        self._most_doublings = most_doublings
        self._nodes: dict[Peer, Node] = {}
        self._leaving: set[asyncio.Future[None]] = set()
        self._slots: list[Peer | None] = [None] * SLOTS
        self._known: tuple[Peer, ...] = address.nodes
        self._is_doubted = True
        self._asking: asyncio.Task[None] | None = None
        self._guard = Guard(log)
        self._looking = Background("forebay-cluster", self._look_again, self._guard)

    async def check(self, *, only_reads: bool) -> None:
        """Check that each master can be used.

        Args:
            only_reads: whether nothing is to be written; masters are asked in either case.

        Raises:
            CoordinatorUnavailable: nobody answers, or a slot has no master.
            ConfigurationError: a server is no node of a cluster, or the credentials are wrong.
            ServerTooOld: a node is older than Redis 7.0 or Valkey 8.
        """
        seconds = self._settings.call_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await self.ask()
        except ResponseError as error:
            if "cluster support disabled" in str(error):
                raise ConfigurationError(no_cluster_at(self._address)) from error
            raise connection_error(error, self._address, "asking where slots are") from error
        except (RedisError, OSError) as error:
            raise connection_error(error, self._address, "asking where slots are") from error
        for node in self.nodes():
            await check_server(
                node.client, node.address, timeout_seconds=seconds, only_reads=only_reads,
                is_node=True,
            )  # fmt: skip

    # -- where shards are

    def place(self, key: str) -> SlotPlace:
        """Return where a key is, now and later."""
        return SlotPlace(self, slot_of(key))

    def node(self, slot: int) -> Node:
        """Return the master of a slot, as far as known.

        Raises:
            ResponseError: no master serves it.
        """
        peer = self._slots[slot]
        if peer is None:
            raise ResponseError(_NOT_SERVED)
        node = self._nodes.get(peer)
        if node is None:
            node = self._nodes[peer] = self._open(peer)
        return node

    def _open(self, peer: Peer) -> Node:
        address = self._address.node(peer)
        return Node(
            address, self._settings, Availability(address), self._most_doublings, self.suspect
        )

    def nodes(self) -> list[Node]:
        """Return the masters that serve slots, in the order of their slots."""
        firsts = {peer: slot for slot, peer in reversed(list(enumerate(self._slots)))}
        firsts.pop(None, None)
        return [self.node(slot) for slot in sorted(firsts.values())]

    def serves(self, peer: Peer, slot: int) -> bool:
        """Return whether a node is the master of a slot, as far as known."""
        return self._slots[slot] == peer

    async def find(self, slot: int) -> Node:
        """Return the master of a slot, once the nodes were asked where that is in doubt.

        Raises:
            RedisError, OSError: no node answers, or no master serves the slot.
        """
        if self._is_doubted:
            await self.ask()
        return self.node(slot)

    # -- what tells that a slot may be elsewhere

    def note(self, error: BaseException) -> None:
        """Learn from an error: MOVED names the master; any other has the nodes asked again."""
        moved = read_moved(error)
        if moved is None or not moved.peer[0]:
            self._is_doubted = True
        elif self._slots[moved.slot] != moved.peer:
            self._slots[moved.slot] = moved.peer
            self._tell_moved()
            self._looking.start()  # other slots may have moved with it

    def suspect(self) -> None:
        """Ask the nodes, unless they are being asked, as one of them is silent."""
        self._looking.start()

    async def ask(self) -> None:
        """Ask the nodes which of them serves each slot; callers at the same time ask once.

        Raises:
            RedisError, OSError: no node answers.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
            # Also where every caller was cancelled, so that asyncio does not log it as unseen.
            self._asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        await outcome_of(self._asking, "asking a cluster's nodes")

    async def _ask(self) -> None:
        self._is_doubted = False
        try:
            try:
                answer = await ask_nodes(self._address, self._known)
            except (RedisError, OSError):
                if set(self._known) == set(self._address.nodes):
                    raise
                answer = await ask_nodes(self._address, self._address.nodes)
        except BaseException:
            self._is_doubted = True
            raise
        self._take(answer)

    def _take(self, answer: Answer) -> None:
        before = self._slots
        self._slots = [None] * SLOTS
        for first, last, peer in answer.ranges:
            self._slots[first : last + 1] = [peer] * (last + 1 - first)
        self._known = answer.nodes or self._address.nodes
        if self._slots != before:
            self._tell_moved()
            self.close_left()

    def _tell_moved(self) -> None:
        for callback in list(self.on_moved):
            self._guard.call(callback)

    async def _look_again(self) -> None:
        try:
            await self.ask()
        except (RedisError, OSError):
            self._is_doubted = True  # asked again by whoever needs a node

    # -- closing

    def close_left(self) -> None:
        """Close what is open to nodes that serve no slot any more and that no member uses."""
        serving = set(self._slots)
        for peer in [peer for peer in self._nodes if peer not in serving]:
            if self._nodes[peer].is_idle:
                closing = asyncio.ensure_future(self._nodes.pop(peer).close())
                self._leaving.add(closing)
                closing.add_done_callback(self._left)

    def _left(self, closing: asyncio.Future[None]) -> None:
        self._leaving.discard(closing)
        if not closing.cancelled() and (error := closing.exception()) is not None:
            self._guard.note("closing what is open to a node", error)

    async def close(self) -> None:
        """Close everything."""
        await self._looking.stop()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        closing = [*self._leaving, *(node.close() for node in self._nodes.values())]
        for error in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(error, BaseException):
                raise error


class SlotPlace:
    """Where the shards of one hash slot are: on the master that serves it.

    Args:
        cluster: the cluster.
        slot: the slot's number.
    """

    def __init__(self, cluster: Cluster, slot: int) -> None:
        self._cluster = cluster
        self._slot = slot

    @property
    def node(self) -> Node:
        """The master."""
        return self._cluster.node(self._slot)

    @property
    def on_moved(self) -> set[Callable[[], None]]:
        """Called when any slot has another master."""
        return self._cluster.on_moved

    async def find(self) -> Node:
        """Return the master, once the nodes were asked where that is in doubt."""
        return await self._cluster.find(self._slot)

    def note(self, error: BaseException) -> None:
        """Learn from an error, as `Cluster.note`."""
        self._cluster.note(error)

    def serves(self, peer: Peer) -> bool:
        """Return whether a node is the master."""
        return self._cluster.serves(peer, self._slot)

    def has(self, node: Node) -> bool:
        """Return whether a node is the master."""
        return isinstance(node.address, TcpAddress) and self._cluster.serves(
            (node.address.host, node.address.port), self._slot
        )

    def suspect(self, _peer: Peer) -> None:
        """Ask the nodes."""
        self._cluster.suspect()
