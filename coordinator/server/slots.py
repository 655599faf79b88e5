"""Which node of a cluster serves each hash slot (design 06, *Where it runs*).

A process asks all nodes that it knows at once and takes the answer that most of them give, as soon
as more than half have answered: a node that is cut off from the others, or silent, decides nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from forebay.coordinator.server.address import ClusterAddress
from forebay.coordinator.server.connections import open_async

SLOTS: Final = 16384
ANSWER_SECONDS: Final = 1.0
"""Bound of asking the nodes once."""

Peer = tuple[str, int]
_Ranges = tuple[tuple[int, int, Peer], ...]


_REDIRECTIONS: Final = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})


@dataclass(frozen=True, slots=True)
class Answer:
    """The slots and nodes of a cluster, as one of its nodes reports them.

    Attributes:
        ranges: first and last slot and the master that serves them, in order.
        nodes: the masters that serve slots, and their replicas.
    """

    ranges: _Ranges
    nodes: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """An error reply MOVED: the slot is served by another node.

    Attributes:
        slot: the slot's number.
        peer: host and port of that node; no host where it is the one that was asked.
    """

    slot: int
    peer: Peer


def slot_of(key: str) -> int:
    """Return the hash slot of a key."""
    return int(key_slot(key.encode()))


def is_redirection(error: ResponseError) -> bool:
    """Return whether an error tells that a slot is elsewhere, on its way, or served by nobody.

    The call was not carried out. ASK is no place to go to: the calls of a shard name keys that do
    not exist, so that the node to which a slot goes refuses them until all of it is there.
    """
    return str(error).partition(" ")[0] in _REDIRECTIONS


def read_moved(error: BaseException) -> Moved | None:
    """Return what an error reply MOVED says; None for any other error."""
    words = str(error).split()
    if not isinstance(error, ResponseError) or len(words) < 3 or words[0] != "MOVED":  # noqa: PLR2004
        return None
    host, _, port = words[2].rpartition(":")
    return Moved(int(words[1]), (host, int(port)))


def read_slots(reply: Iterable[Any], asked: Peer) -> Answer:
    """Return what a reply of CLUSTER SLOTS says.

    Args:
        reply: as the server gives it: first slot, last slot, the master, its replicas.
        asked: host and port of the node that answered; its host stands for one left out.
    """
    ranges, nodes = [], []
    for first, last, *serving in reply:
        peers = [_peer(node, asked) for node in serving]
        nodes += [peer for peer in peers if peer is not None]
        if peers and peers[0] is not None:
            ranges.append((int(first), int(last), peers[0]))
    return Answer(tuple(sorted(ranges)), tuple(dict.fromkeys(nodes)))


def _peer(node: Any, asked: Peer) -> Peer | None:
    host = b"" if node[0] is None else bytes(node[0])
    if host == b"?":  # the node does not know its name
        return None
    return host.decode() or asked[0], int(node[1])


async def ask_nodes(address: ClusterAddress, peers: Iterable[Peer]) -> Answer:
    """Ask nodes which of them serves each slot, and return what most of them answer.

    Args:
        address: of the cluster, whose user and TLS the connections have.
        peers: host and port of the nodes to ask.

    Raises:
        RedisError, OSError: none of them answered; the last one's error.
    """
    asking = [asyncio.ensure_future(_ask(address, peer)) for peer in dict.fromkeys(peers)]
    answers: list[Answer] = []
    fault: RedisError | OSError = RedisConnectionError("no node of the cluster answers")
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            for asked in asyncio.as_completed(asking):
                try:
                    answers.append(await asked)
                except (RedisError, OSError) as error:
                    fault = error
                if 2 * len(answers) > len(asking):
                    break
    except TimeoutError:
        pass
    finally:
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    if not answers:
        raise fault
    (ranges, _count), *_ = Counter(answer.ranges for answer in answers).most_common(1)
    return next(answer for answer in answers if answer.ranges == ranges)


async def _ask(address: ClusterAddress, peer: Peer) -> Answer:
    client: Any = open_async(address.node(peer), connect_timeout_seconds=ANSWER_SECONDS)
    connection = client.connection_pool.make_connection()
    try:
        await connection.connect()
        await connection.send_command("CLUSTER", "SLOTS")
        return read_slots(await connection.read_response(), peer)
    finally:
        connection._close()  # noqa: SLF001 - also after a cancellation, as in `open_wire`
