"""A server in a process of its own that a test kills and restarts, with or without data."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import redis

from forebay.coordinator.server.embedded_files import find_server_binary
from tests.support_sentinel import HOST, free_port

START_SECONDS = 30.0


class LosingServer:
    """One server, always on the same port; it writes nothing down unless it is told to.

    Args:
        folder: for its data.

    Attributes:
        url: for members.
        client: of the server.
        returned_at: the instant of CLOCK_MONOTONIC at which it last answered again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://{HOST}:{self._port}"
        self.client: Any = self._stack.enter_context(redis.Redis(host=HOST, port=self._port))
        self.returned_at = 0.0

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._stack.close()

    def start(self, *options: str) -> None:
        """Start it with what lies in its folder, and wait until it answers."""
        words = [
            "--port",
            str(self._port),
            "--bind",
            HOST,
            "--dir",
            str(self._folder),
            "--save",
            "",
        ]
        with (self._folder.parent / "server-log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_server_binary(), *words, *options], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.client.ping()
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
            else:
                self.returned_at = time.monotonic()
                return

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    # -- what it has to begin with

    def forget_data(self) -> None:
        """Remove all data while it is ended."""
        shutil.rmtree(self._folder)
        self._folder.mkdir()

    def write_snapshot(self) -> None:
        """Write an RDB file of the present state."""
        self.client.save()

    def begin_log(self) -> None:
        """Let it write an append-only file, which is flushed every second."""
        self.client.config_set("appendfsync", "everysec")
        self.client.config_set("appendonly", "yes")
        while (
            self.client.info("persistence")["aof_rewrite_in_progress"]
            or (self.client.info("persistence")["aof_rewrite_scheduled"])
        ):
            time.sleep(0.005)

    @property
    def _log_file(self) -> Path:
        (file,) = (self._folder / "appendonlydir").glob("*.incr.aof")
        return file

    def log_size(self) -> int:
        """Return how many bytes its append-only file has."""
        return self._log_file.stat().st_size

    def truncate_log(self, size: int) -> None:
        """Cut the append-only file off while it is ended, as a lost write does."""
        with self._log_file.open("r+b") as file:
            file.truncate(size)
