"""A server with a replica, in processes of their own, that can be killed, stopped and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from forebay.coordinator.server.embedded_files import find_server_binary
from tests.chaos.pipes import HOST, Pipe
from tests.support import wait_until

START_SECONDS: Final = 30.0


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

    async def kill(self, seconds: float, *, is_emptied: bool = False) -> None:
        """Kill the primary and start it again after a while, with its data or without."""
        self.primary.process.kill()
        self.primary.process.wait()
        await asyncio.sleep(seconds)
        if is_emptied:
            self.replica.process.kill()  # else it might be asked to bring the data back
            self.replica.process.wait()
            self.primary = self._start()
            self._lead_to_primary()
            self.replica = self._start("--replicaof", HOST, str(self.primary.port))
        else:
            self.primary = self._start(of=self.primary)
        await self.until_ready()

    async def stop(self, seconds: float) -> None:
        """Stop the primary for a while (SIGSTOP)."""
        self.primary.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.primary.process.send_signal(signal.SIGCONT)

    async def fail_over(self, losing_seconds: float = 0.0) -> None:
        """Kill the primary and let the replica take its place.

        Args:
            losing_seconds: for so long before, the replica gets no write; with 0 it misses none.
        """
        await self.until_whole()
        if losing_seconds:
            await asyncio.to_thread(self.replica.client.replicaof, "NO", "ONE")
            await asyncio.sleep(losing_seconds)
        else:
            await asyncio.to_thread(_drain, self.primary)
        self.primary.process.kill()
        self.primary.process.wait()
        await asyncio.to_thread(self.replica.client.replicaof, "NO", "ONE")
        self.primary = self.replica
        self._lead_to_primary()
        self.replica = self._start("--replicaof", HOST, str(self.primary.port))

    def _lead_to_primary(self) -> None:
        for pipe in self._pipes:
            pipe.target_port = self.primary.port
            pipe.cut()


def _answers(server: Server) -> bool:
    try:
        return bool(server.client.ping())
    except redis.RedisError:
        return False


def _drain(server: Server) -> None:
    """Let a server take no more writes, and its replica have all that it took."""
    client = server.client
    client.client_pause(5_000, all=False)
    if client.wait(1, 4_000) != 1:
        raise AssertionError("the replica did not follow within 4 s")
