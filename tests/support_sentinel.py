"""A primary with a replica, watched by a Sentinel, and faults of the primary."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from forebay.coordinator.server.embedded_files import find_server_binary
from tests.support import wait_until

HOST: Final = "127.0.0.1"
SERVICE: Final = "main"
MISSED_BYTES: Final = 20_000
"""Of commands that a replica misses: some tens of calls."""
MISSING_SECONDS: Final = 30.0


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as reserved:
        reserved.bind((HOST, 0))
        port: int = reserved.getsockname()[1]
    return port


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A primary with a replica, watched by a Sentinel.

    Attributes:
        url: for members.
        replica_port: where the replica listens.
        process: the primary's.
        primary: a client of the primary.
        replica: a client of the replica.
        sentinel: a client of the Sentinel.
    """

    url: str
    replica_port: int
    process: subprocess.Popen[bytes]
    primary: redis.Redis
    replica: redis.Redis
    sentinel: redis.Redis

    def kill_primary(self) -> None:
        """Kill the primary while calls are under way, and let its replica miss no write."""
        self.primary.client_pause(60_000, all=False)
        assert self.primary.wait(1, 30_000) == 1
        self.process.send_signal(signal.SIGKILL)

    def kill_primary_ahead(self) -> None:
        """Kill the primary once its replica has missed writes, which others make meanwhile."""
        replica: Any = self.replica
        replica.config_set("masteruser", "nobody")
        replica.config_set("masterauth", "none")  # it stays up, and is refused from now on
        replica.execute_command("CLIENT", "KILL", "TYPE", "master")
        deadline = time.monotonic() + MISSING_SECONDS
        while self._written() < self._followed() + MISSED_BYTES and time.monotonic() < deadline:
            time.sleep(0.01)
        self.process.send_signal(signal.SIGKILL)

    def _written(self) -> int:
        primary: Any = self.primary
        return int(primary.info("replication")["master_repl_offset"])

    def _followed(self) -> int:
        replica: Any = self.replica
        return int(replica.info("replication")["slave_repl_offset"])

    def stop_primary(self) -> None:
        """Stop the primary's process: its connections stay open, and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def is_promoted(self) -> bool:
        """Whether the replica is the primary."""
        try:
            replica: Any = self.replica
            role: str = replica.info("replication")["role"]
        except redis.ConnectionError:  # it is being promoted, and closes its connections
            return False
        return role == "master"


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@contextlib.contextmanager
def watched_primary(folder: Path, down_after_ms: int = 500) -> Iterator[Watched]:
    """Start the three servers in a folder of their own, and end them with the block."""
    binary = str(find_server_binary())
    primary, replica, sentinel = free_port(), free_port(), free_port()
    conf = folder / "sentinel.conf"
    conf.write_text(
        f"port {sentinel}\nbind {HOST}\ndir {folder}\n"
        f"sentinel monitor {SERVICE} {HOST} {primary} 1\n"
        f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}\n"
        f"sentinel failover-timeout {SERVICE} 5000\n"
    )
    with contextlib.ExitStack() as stack:

        def started(*words: str | int) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / "log").open("ab"))
            process = subprocess.Popen([binary, *map(str, words)], stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        def served(port: int, *more: str | int) -> subprocess.Popen[bytes]:
            own = folder / str(port)
            own.mkdir()
            return started("--port", port, "--bind", HOST, "--dir", str(own), *more)

        first = served(primary, "--repl-diskless-sync-delay", 0)
        served(replica, "--replicaof", HOST, primary)
        started(str(conf), "--sentinel")
        client = stack.enter_context(redis.Redis(host=HOST, port=replica))
        teller = stack.enter_context(redis.Redis(host=HOST, port=sentinel))

        def is_whole() -> bool:
            if not (_answers(client) and _answers(teller)):
                return False
            told = teller.execute_command("SENTINEL", "REPLICAS", SERVICE)
            return client.info("replication").get("master_link_status") == "up" and bool(told)

        asyncio.run(wait_until(is_whole, timeout=30))
        own = stack.enter_context(redis.Redis(host=HOST, port=primary))
        url = f"redis+sentinel://{HOST}:{sentinel}/{SERVICE}"
        yield Watched(
            url=url,
            replica_port=replica,
            process=first,
            primary=own,
            replica=client,
            sentinel=teller,
        )
