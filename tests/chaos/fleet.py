"""The processes of a chaos run, each behind a pipe of its own, and begun again when they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from forebay.runtime import start_worker, stop_workers
from tests.chaos.app import JOB_FILE
from tests.chaos.pipes import Pipe

ROOT: Final = Path(__file__).parents[2]
TTL_SECONDS: Final = 3.0
QUIET: Final = ("--log-level", "critical")
Role = str
"""``worker`` (arq jobs), ``cells`` (a worker of runs), ``caller`` or ``driver``."""


@dataclass(eq=False, kw_only=True)
class Member:
    """A place in the fleet: a process, and each one that replaces it.

    Attributes:
        role: what it does.
        pipe: between it and the server.
        start: begins a process.
        process: the one that runs now.
    """

    role: Role
    pipe: Pipe
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        """The process as the observers know it."""
        return "runs" if self.role == "cells" else str(self.process.pid)


@dataclass(eq=False, kw_only=True)
class Fleet:
    """All processes of a run.

    Args:
        folder: for what they write.
        base_url: the provider.

    Attributes:
        members: by place.
        deaths: when each process ended, by its id.
        runs: ids of the runs that were begun, in order.
    """

    folder: Path
    base_url: str
    members: list[Member] = field(default_factory=list)
    deaths: dict[str, float] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    is_ending: bool = False
    unexpected: list[str] = field(default_factory=list)

    def of(self, *roles: Role) -> list[Member]:
        """Return the members with one of these roles."""
        return [member for member in self.members if member.role in roles]

    def add(self, role: Role, pipe: Pipe, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        """Begin a member."""
        self.members.append(Member(role=role, pipe=pipe, start=start, process=start()))

    # -- what is begun

    def add_worker(self, pipe: Pipe) -> None:
        """Begin a worker of arq's jobs."""
        app = "tests.chaos.app.WorkerSettings"
        environ = {JOB_FILE: str(self.folder / "jobs"), "PYTHONPATH": str(ROOT)}
        options = ("--ttl", str(TTL_SECONDS), "--slots", "5", *QUIET)
        self.add("worker", pipe, lambda: start_worker(pipe.url, app, *options, environ=environ))

    def add_cells_worker(self, pipe: Pipe) -> None:
        """Begin a worker of runs."""
        host = self.base_url.split("/")[2]
        options = ("--ttl", str(TTL_SECONDS), "--slots", "4", "--pool", "runs", *QUIET)
        options += ("--allow-host", host, "--allow-path", str(self.folder))
        environ = {"FOREBAY_PROVIDER_LOCAL_BASE_URL": self.base_url, "PYTHONPATH": str(ROOT)}
        self.add("cells", pipe, lambda: start_worker(pipe.url, *options, environ=environ))

    def add_caller(self, pipe: Pipe, tenants: str, seed: int) -> None:
        """Begin a process of SDK callers."""
        terms = (pipe.url, self.base_url, str(self.folder), tenants, str(seed))
        self.add("caller", pipe, lambda: self._python("tests.chaos.caller", *terms))

    def add_driver(self, pipe: Pipe) -> None:
        """Begin to drive one run after the other."""
        self.add("driver", pipe, lambda: self._drive(pipe))

    def _drive(self, pipe: Pipe) -> subprocess.Popen[bytes]:
        if not self.runs or (self.folder / f"{self.runs[-1]}.done").exists():
            self.runs.append(f"run-{len(self.runs)}")
        workflow = str(self.folder / "workflow.toml")
        return self._python("tests.chaos.driver", pipe.url, workflow, self.runs[-1])

    def _python(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        environ = {"PYTHONPATH": str(ROOT), "FOREBAY_PROVIDER_LOCAL_BASE_URL": self.base_url}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, **environ},
                stdout=log,
                stderr=log,
            )

    # -- supervision

    async def supervise(self) -> None:
        """Begin again each process that ends, until the run does."""
        while True:
            for member in self.members:
                if member.process.poll() is not None:
                    self._bury(member)
                    member.process = member.start()
            await asyncio.sleep(0.05)

    def _bury(self, member: Member) -> None:
        self.deaths.setdefault(str(member.process.pid), time.monotonic())
        if member.role == "caller" and member.process.returncode not in {-9, -15}:
            self.unexpected.append(f"a caller ended with {member.process.returncode}")
        if member.process.stdin is not None:
            member.process.stdin.close()

    def has_called(self, caller: Member) -> bool:
        """Whether a process of callers has had an answer."""
        calls = self.folder / f"calls-{caller.process.pid}"
        return calls.exists() and calls.stat().st_size > 0

    def kill(self, member: Member) -> None:
        """Kill a process; another takes its place."""
        member.process.kill()
        member.process.wait()
        self.deaths[str(member.process.pid)] = time.monotonic()

    async def stop(self, member: Member, seconds: float) -> None:
        """Stop a process for a while."""
        process = member.process
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)

    def end(self, *roles: Role) -> None:
        """End members in good order, or in none if they do not end."""
        ended: list[Any] = [member.process for member in self.of(*roles)]
        self.members = [member for member in self.members if member.role not in roles]
        stop_workers(ended, grace_seconds=15.0)
        for process in ended:
            process.wait(15)
