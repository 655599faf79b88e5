"""A server with a replica, in processes of their own, that can be killed, stopped and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis
from arq.constants import job_key_prefix, result_key_prefix

from forebay.coordinator.server.embedded_files import find_server_binary
from tests.chaos.losses import Stored
from tests.chaos.pipes import HOST, Pipe
from tests.support import wait_until

START_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 4.0
PAUSE_MS: Final = 5_000
"""Longer than what is done meanwhile; a killed server's pause ends with it."""
_PREFIXES: Final = (result_key_prefix, job_key_prefix)
_FLUSH: Final = """
local found = { redis.call('KEYS', ARGV[1] .. '*'), redis.call('KEYS', ARGV[2] .. '*') }
redis.call('FLUSHALL')
return found
"""


def _free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind((HOST, 0))
        port: int = reserved.getsockname()[1]
    return port


@dataclass(eq=False, kw_only=True)
class Server:
    """One server process; its data lie in its folder, in an append-only file.

    Each write is in the file before it is answered, so that SIGKILL loses none: ``everysec`` holds
    writes back while the disk is busy, and loses up to two seconds of what was answered.

    Attributes:
        client: of the server itself, by no pipe.
    """

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    client: redis.Redis


class Servers:
    """The primary, its replica, and the pipes that lead to whichever is primary.

    Attributes:
        primary: the server that is written to.
    """

    def __init__(self, folder: Path, pipes: list[Pipe]) -> None:
        self._folder = folder
        self._pipes = pipes
        self._count = 0
        self._stack = contextlib.ExitStack()
        self.primary = self._start()
        self.replica = self._start("--replicaof", HOST, str(self.primary.port))

    def close(self) -> None:
        """End both."""
        self._stack.close()

    async def until_ready(self) -> None:
        """Wait until the primary answers."""
        await wait_until(lambda: _answers(self.primary), timeout=START_SECONDS)

    async def until_whole(self) -> None:
        """Wait until the replica follows the primary."""

        def is_whole() -> bool:
            try:
                info: Any = self.replica.client.info("replication")
            except redis.RedisError:
                return False
            return bool(info.get("master_link_status") == "up")

        await wait_until(is_whole, timeout=START_SECONDS)

    def _start(self, *options: str, of: Server | None = None) -> Server:
        self._count += 1
        folder = self._folder / f"server-{self._count}" if of is None else of.folder
        folder.mkdir(exist_ok=True)
        port = _free_port() if of is None else of.port
        log = self._stack.enter_context((folder / "log").open("ab"))
        words = ["--port", str(port), "--bind", HOST, "--dir", str(folder), "--save", ""]
        words += ["--appendonly", "yes", "--appendfsync", "no", *options]
        words += ["--repl-diskless-sync-delay", "0"]
        process = subprocess.Popen([find_server_binary(), *words], stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        client = self._stack.enter_context(redis.Redis(host=HOST, port=port, socket_timeout=5.0))
        return Server(folder=folder, port=port, process=process, client=client)

    # -- faults

    async def kill(self, seconds: float) -> None:
        """Kill the primary and start it again after a while, with its data."""
        self.primary.process.kill()
        self.primary.process.wait()
        await asyncio.sleep(seconds)
        self.primary = self._start(of=self.primary)
        await self.until_ready()

    async def flush(self) -> Stored:
        """Empty the primary (FLUSHALL); return what it had at that instant."""
        words = (_FLUSH, 0, result_key_prefix, job_key_prefix)
        results, payloads = await asyncio.to_thread(self.primary.client.eval, *words)
        return _stored(results, payloads)

    async def empty(self, seconds: float) -> Stored:
        """Kill the primary and start another without data; return what the killed one had."""
        client = self.primary.client
        await asyncio.to_thread(client.client_pause, PAUSE_MS, all=False)
        found = [await asyncio.to_thread(client.keys, f"{prefix}*") for prefix in _PREFIXES]
        for server in (self.primary, self.replica):  # else it might bring the data back
            server.process.kill()
            server.process.wait()
        await asyncio.sleep(seconds)
        self.primary = self._start()
        self._lead_to_primary()
        self.replica = self._start("--replicaof", HOST, str(self.primary.port))
        await self.until_ready()
        return _stored(*found)

    async def stop(self, seconds: float) -> None:
        """Stop the primary for a while (SIGSTOP)."""
        self.primary.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.primary.process.send_signal(signal.SIGCONT)

    async def fail_over(self, losing_seconds: float = 0.0) -> float:
        """Kill the primary and let the replica take its place.

        Args:
            losing_seconds: for so long before, the replica gets no write; with 0 it misses none.

        Returns:
            The instant up to which the replica has every write.
        """
        await self.until_whole()
        had_all_until = time.monotonic()
        await asyncio.to_thread(drain, self.primary, self.replica)
        if losing_seconds:
            await asyncio.to_thread(self.replica.client.replicaof, "NO", "ONE")
            await asyncio.to_thread(self.primary.client.client_unpause)
            await asyncio.sleep(losing_seconds)
        self.primary.process.kill()
        self.primary.process.wait()
        await asyncio.to_thread(self.replica.client.replicaof, "NO", "ONE")
        self.primary = self.replica
        self._lead_to_primary()
        self.replica = self._start("--replicaof", HOST, str(self.primary.port))
        return had_all_until

    def _lead_to_primary(self) -> None:
        for pipe in self._pipes:
            pipe.target_port = self.primary.port
            pipe.cut()


def _answers(server: Server) -> bool:
    try:
        return bool(server.client.ping())
    except redis.RedisError:
        return False


def drain(primary: Server, replica: Server) -> None:
    """Let the primary take no more writes, and the replica have all that it took.

    WAIT would count the writes of its own connection alone, which made none.
    """
    primary.client.client_pause(PAUSE_MS, all=False)
    written = _offset(primary, "master_repl_offset")
    deadline = time.monotonic() + DRAIN_SECONDS
    while _offset(replica, "slave_repl_offset") < written:
        if time.monotonic() > deadline:
            raise AssertionError(f"the replica did not follow within {DRAIN_SECONDS:g} s")
        time.sleep(0.005)


def _offset(server: Server, name: str) -> int:
    info: Any = server.client.info("replication")
    return int(info[name])


def _stored(results: Any, payloads: Any) -> Stored:
    found = [
        frozenset(key.decode().removeprefix(prefix) for key in keys)
        for prefix, keys in zip(_PREFIXES, (results, payloads), strict=True)
    ]
    return Stored(*found)
