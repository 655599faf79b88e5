"""arq workers in processes of their own, whose jobs write into the pool's own event stream.

One stream has one order, so that what a job did stands between the events of the leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.runtime import start_worker, stop_workers
from tests.support import wait_until

KEYS: Final = pool_shard("default")
TTL_SECONDS: Final = 1.0
START_SECONDS: Final = 20.0
"""Above what a process takes to start on a busy machine."""

_ROOT: Final = Path(__file__).parents[1]
_BEGIN: Final = "task_lease_acquired"
_ENDS: Final = {"task_lease_released", "retry_deferred", "task_lease_expired"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened to a task: told by the pool, or noted by its job (kinds ``job_...``)."""

    kind: str
    task_id: str
    lease_id: str
    member_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervised:
    """Workers that are begun again when they end.

    Attributes:
        workers: those that run now.
        ends: exit codes of those that ended, in order; a signal's is below 0.
    """

    workers: list[subprocess.Popen[bytes]]
    ends: list[int]


class ArqFleet:
    """Processes that run the jobs of ``arq_app``, and what the server knows of them.

    Args:
        url: the server.
        folder: where gates of jobs are; a job waits for its gate.
        stack: ends the processes.
    """

    def __init__(self, url: str, folder: Path, stack: contextlib.ExitStack) -> None:
        self.url = url
        self.client = stack.enter_context(open_sync(parse_url(url)))
        self._folder = folder
        self._stack = stack

    def start(
        self, count: int = 1, *options: str, settings: str = "tests.arq_app.WorkerSettings"
    ) -> list[subprocess.Popen[bytes]]:
        """Start workers with one slot each, unless the options say otherwise."""
        workers = [
            start_worker(
                self.url,
                settings,
                *("--ttl", str(TTL_SECONDS), "--slots", "1", "--log-level", "warning", *options),
                environ={"PYTHONPATH": str(_ROOT)},
            )
            for _ in range(count)
        ]
        self._stack.callback(stop_workers, workers)
        return workers

    @contextlib.asynccontextmanager
    async def supervised(
        self, count: int, *options: str, settings: str
    ) -> AsyncIterator[Supervised]:
        """Keep so many workers alive for the length of the block, as a supervisor does.

        Yields:
            The workers, and how those ended that were begun again.
        """
        workers, ends = self.start(count, *options, settings=settings), list[int]()

        async def supervise() -> None:
            while True:
                for number, worker in enumerate(workers):
                    if worker.poll() is not None:
                        ends.append(worker.returncode)
                        stop_workers([worker])  # its pipe
                        workers[number] = self.start(1, *options, settings=settings)[0]
                await asyncio.sleep(0.02)

        supervising = asyncio.create_task(supervise())
        try:
            yield Supervised(workers=workers, ends=ends)
        finally:
            supervising.cancel()
            await asyncio.wait({supervising})
            stop_workers(workers)

    async def until_idle(self, count: int) -> None:
        """Wait until as many workers have asked for tasks and got none."""
        await wait_until(lambda: self.client.zcard(KEYS["idle"]) == count, timeout=START_SECONDS)

    # -- gates

    def gate(self, name: str) -> str:
        """Return a gate, as an argument of a job."""
        return str(self._folder / name)

    def open_gate(self, name: str) -> None:
        """Let the jobs go on that wait at a gate."""
        (self._folder / name).touch()

    # -- what happened

    def events(self) -> list[Event]:
        """Return what happened to tasks so far, in order."""
        found = []
        for _id, fields in self.client.xrange(KEYS["events"]):
            event = {key.decode(): value.decode() for key, value in fields.items()}
            if "task_id" in event:
                names = ("kind", "task_id", "lease_id", "member_id")
                found.append(Event(**{name: event.get(name, "") for name in names}))
        return found

    def members_that(self, kind: str, task_id: str) -> list[str]:
        """Return the members in which a task's job noted something, in order."""
        return [e.member_id for e in self.events() if (e.kind, e.task_id) == (kind, task_id)]

    def leases_of(self, worker: subprocess.Popen[bytes]) -> list[bytes]:
        """Return what a worker holds of tasks."""
        held = self.client.zrange(KEYS["held"], 0, -1)
        return [name for name in held if b"\0lease\0" in name and is_of(name.decode(), worker)]

    def memberships_of(self, worker: subprocess.Popen[bytes]) -> set[bytes]:
        """Return a worker's memberships of the pool."""
        members = self.client.zrange(KEYS["members"], 0, -1)
        return {name for name in members if is_of(name.decode(), worker)}

    async def until_noted(
        self, kind: str, task_id: str, count: int = 1, timeout: float = START_SECONDS
    ) -> str:
        """Wait until a task's job noted something; return the member in which it did last."""
        await wait_until(lambda: len(self.members_that(kind, task_id)) >= count, timeout=timeout)
        return self.members_that(kind, task_id)[-1]


def is_of(member_id: str, worker: subprocess.Popen[Any]) -> bool:
    """Whether a membership is a process's: its name begins with the pid and eight digits."""
    return member_id.partition("-")[0][:-8] == f"{worker.pid:x}"


def check_order(events: Iterable[Event]) -> Counter[str]:
    """Check that each start stands under a live lease of its task and member; count the kinds.

    A lease is live from ``task_lease_acquired`` to its end, and no task has two at a time. Under
    it, and under none other, its worker tells ``worker_spawned``, once, and its job begins.
    """
    live: dict[str, tuple[str, str]] = {}
    spawned: set[str] = set()
    kinds: Counter[str] = Counter()
    for event in events:
        kinds[event.kind] += 1
        lease_id, member_id = live.get(event.task_id, ("", ""))
        if event.kind == _BEGIN:
            assert not lease_id, f"{event} while {lease_id} is live"
            assert event.lease_id not in spawned
            live[event.task_id] = (event.lease_id, event.member_id)
        elif event.kind in _ENDS:
            assert event.lease_id == lease_id, f"{event} while {lease_id or 'none'} is live"
            del live[event.task_id]
        elif event.kind == "worker_spawned":
            assert (event.lease_id, event.member_id) == (lease_id, member_id), str(event)
            assert event.lease_id not in spawned, f"a second start: {event}"
            spawned.add(event.lease_id)
        elif event.kind == "job_began":
            assert event.member_id == member_id, f"{event} without a lease of its own"
        elif event.kind == "cancelled":
            assert not lease_id, f"{event} while {lease_id} is live"
    assert not live, f"leases that never ended: {live}"
    return kinds
