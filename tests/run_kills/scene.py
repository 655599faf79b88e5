"""The processes of one run that is killed: its server, its workers and its driver."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.mock_provider.log import RequestRecord
from forebay.mock_provider.server import MockProviderServer
from forebay.runtime import start_worker
from tests.run_kills import driver as killed_driver
from tests.run_kills.accounting import Loss
from tests.run_kills.workflows import MODULE

ROOT: Final = Path(__file__).parents[2]
WORKERS: Final = 2
SLOTS: Final = 4
LOST_SECONDS: Final = 1.0
"""What a machine that dies loses of a file that is synced each second."""
HELD_BACK_SECONDS: Final = 2.0
"""For so long a server holds back what it writes to such a file, while the disk is busy."""
TOLD_SECONDS: Final = 0.5
"""Within which a worker has told the server what its provider has answered."""
LOOK_SECONDS: Final = 0.02

Kind = Literal["driver", "workers", "server", "machine", "everything"]
Policy = Literal["always", "everysec"]
"""How the server syncs its append-only file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill.

    Attributes:
        kind: ``driver``; ``workers``, all of them; ``server``; ``machine``, that of the server, so
            that up to a second of a file is lost that is synced each second; ``everything`` but
            that machine.
        after_calls: the provider has seen so many calls.
        delay_seconds: and then so long passes.
    """

    kind: Kind
    after_calls: int
    delay_seconds: float


@dataclass(eq=False, kw_only=True)
class Scene:
    """Server, workers and driver of one run.

    Args:
        folder: where the user is, with the workflow.
        provider: asked by the workers.
        rng: decides what is not said.
        policy: of the server's file.
        ttl_seconds: after which others hold the leases of a worker that was killed.
        dies_at: of the drivers in their order, the change in the folder before which each dies.
    """

    folder: Path
    provider: MockProviderServer
    rng: random.Random
    policy: Policy = "always"
    ttl_seconds: float
    dies_at: deque[int] = field(default_factory=deque)
    server: EmbeddedServer = field(init=False)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    driver: subprocess.Popen[bytes] | None = None
    losses: list[Loss] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _sizes: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=200))

    def __post_init__(self) -> None:
        self.server = EmbeddedServer(self.folder / "data")

    def begin(self) -> None:
        """Start everything."""
        self.server.start()
        self._sync()
        self.start_workers()
        self.drive()

    def end(self) -> None:
        """Kill what is left."""
        for process in [*self.workers, *([self.driver] if self.driver else [])]:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self.server.stop()

    @property
    def log_file(self) -> Path:
        """Return the file that takes the output of the user's commands."""
        return self.folder / "said"

    # -- processes

    def start_workers(self) -> None:
        """Start all workers; earlier ones are dead."""
        host = self.provider.root_url.removeprefix("http://")
        options = ("--slots", str(SLOTS), "--ttl", str(self.ttl_seconds), "--log-level", "critical")
        options += ("--allow-host", host, "--allow-path", str(self.folder))
        options += ("--allow-code", MODULE)
        self.workers = [start_worker(self.server.url, *options) for _ in range(WORKERS)]

    def drive(self) -> None:
        """Drive the run, or go on with it: here, or where another path leads to its output."""
        where, words = self.folder, ["run", "flow.toml", "--no-report", "--resume"]
        parts = sorted(self.folder.glob("out.*.parts"))
        is_begun = parts and any(parts[0].glob("*.records.jsonl"))
        if is_begun and not (parts[0] / "assembled").exists() and self.rng.random() < 0.5:
            where = self.folder.with_name(f"{self.folder.name}-elsewhere")
            where.mkdir(exist_ok=True)
            link = where / "mounted"
            if not link.is_symlink():
                link.symlink_to(self.folder)
            name, run_id = parts[0].name.removesuffix(".parts").rsplit(".", 1)
            words = ["resume", run_id, "--no-report", "--output", str(link / name)]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), killed_driver.FOLDER: str(self.folder)}
        environ[killed_driver.COUNT_FILE] = str(self.folder.with_name(f"{self.folder.name}.count"))
        environ[killed_driver.DIES_AT] = str(self.dies_at.popleft() if self.dies_at else 0)
        self.said.append(" ".join(words))
        command = [sys.executable, "-m", "tests.run_kills.driver", *words, "--url", self.server.url]
        with self.log_file.open("ab") as log:
            log.write(f"-- {' '.join(words)}\n".encode())
            log.flush()
            self.driver = subprocess.Popen(
                command, cwd=where, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def _sync(self) -> None:
        with open_sync(parse_url(self.server.url)) as client:
            client.config_set("appendfsync", self.policy)

    # -- what is seen

    def calls(self) -> int:
        """Return how many calls the provider has taken."""
        counters = self.provider.state.counters
        return counters.in_flight + counters.ok + counters.errors + counters.abandoned

    def records(self) -> list[RequestRecord]:
        """Return the calls in the provider's log."""
        return [one for _, one in self.provider.state.log.since() if isinstance(one, RequestRecord)]

    async def watch_file(self) -> None:
        """Note how long the server's file is, for a machine that dies."""
        while True:
            if self.calls():  # a run that was submitted in the last second would be lost whole
                self._sizes.append((time.monotonic(), self._file().stat().st_size))
            await asyncio.sleep(LOOK_SECONDS)

    def _file(self) -> Path:
        (file,) = (self.folder / "data" / "appendonlydir").glob("*.incr.aof")
        return file

    # -- kills

    def kill(self, kill: Kill) -> None:
        """Kill, and begin again what was killed."""
        self.killed.append(kill.kind)
        if kill.kind in {"driver", "everything"} and self.driver is not None:
            self.driver.kill()
            self.driver.wait()
        if kill.kind in {"workers", "everything"}:
            for worker in self.workers:
                worker.kill()
            self._note_loss()
            for worker in self.workers:
                worker.wait()
                if worker.stdin is not None:
                    worker.stdin.close()
        if kill.kind not in {"driver", "workers"}:
            self._kill_server(kill.kind)
        if kill.kind in {"workers", "everything"}:
            self.start_workers()

    def _kill_server(self, kind: Kind) -> None:
        self.server.kill()
        if kind == "machine":
            self._note_loss(self._lose_the_end())
        else:
            self._note_loss(HELD_BACK_SECONDS if self.policy == "everysec" else None)
        self.server.restart()
        self._sync()

    def _lose_the_end(self) -> float:
        """Cut the server's file to what it was some time ago, at any byte; return the seconds."""
        now, lost = time.monotonic(), self.rng.uniform(0.0, LOST_SECONDS)
        older = [look for look in self._sizes if look[0] <= now - lost]
        at, size = older[-1] if older else self._sizes[0]
        self._sizes.clear()
        os.truncate(self._file(), size)
        return now - at

    def _note_loss(self, lost_seconds: float | None = None) -> None:
        at = self.provider.state.elapsed_seconds()
        if lost_seconds is None:
            self.losses.append(Loss(at=at, since=at, most=WORKERS * SLOTS))
        else:
            self.losses.append(Loss(at=at, since=at - lost_seconds - TOLD_SECONDS, most=None))

    def driver_has_ended(self) -> bool:
        """Whether the run is over; a driver that was killed is followed by another."""
        assert self.driver is not None
        code = self.driver.poll()
        if code is None:
            return False
        if code == -signal.SIGKILL:
            if not self.killed or self.killed[-1] not in {"driver", "everything"}:
                self.killed.append("driver")
            self.drive()
            return False
        return True
