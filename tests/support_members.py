"""Members in processes of their own, of a request shard or of a pool, that do what a test says.

What the server noted, in its own order and by its own clock, is read from the shard's events.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

from forebay.coordinator.keys import ShardKeys, pool_shard, request_shard
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.snapshots import audit_pool
from tests.member_process import MODEL
from tests.support import wait_until
from tests.support_tasks import POOL, task

Kind = Literal["requests", "tasks"]
KINDS: Final[tuple[Kind, ...]] = ("requests", "tasks")
KEYS: Final[dict[Kind, ShardKeys]] = {"requests": request_shard(MODEL), "tasks": pool_shard(POOL)}
LEASE_EXPIRED: Final = {"requests": "request_lease_expired", "tasks": "task_lease_expired"}

TTL_SECONDS: Final = 4.5
PATIENCE_SECONDS: Final = 60.0
"""Above what anything here takes on a busy machine, below a test's end."""
READY_TASKS: Final = 64
_ROOT: Final = Path(__file__).parents[1]


@dataclass(eq=False, kw_only=True)
class Member:
    """A process, and what it said.

    Attributes:
        granted: ids of the leases that it was told it holds, in order.
        lost: ids of those that it was told it lost.
        released: by lease id, the reason that a release gave.
    """

    process: Process
    granted: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    released: dict[str, str] = field(default_factory=dict)
    is_ready: bool = False

    async def listen(self) -> None:
        """Note what it says, until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            match json.loads(line):
                case ["ready"]:
                    self.is_ready = True
                case ["granted", lease_id]:
                    self.granted.append(lease_id)
                case ["lost", lease_id, *_why]:
                    self.lost.append(lease_id)
                case ["released", lease_id, reason]:
                    self.released[lease_id] = reason

    def order(self, word: Literal["take", "release"], count: int) -> None:
        """Let it take or give back so many leases, the oldest first."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word} {count}\n".encode())

    async def until_granted(self, count: int) -> None:
        """Wait until it was told of so many leases in all."""
        await wait_until(lambda: len(self.granted) >= count, timeout=PATIENCE_SECONDS)
        assert len(self.granted) == count

    async def until_released(self, count: int) -> list[str]:
        """Wait until it was told what became of so many releases; return the reasons."""
        await wait_until(lambda: len(self.released) >= count, timeout=PATIENCE_SECONDS)
        return list(self.released.values())

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)


class Members:
    """The members of one shard.

    Args:
        url: the server.
        kind: whether they take request leases, or tasks of a pool.
        cap: how many leases there are.
        ttl_seconds: of each member.

    Attributes:
        interval_us: between two heartbeats of a member.
    """

    def __init__(self, url: str, kind: Kind, cap: int, *, ttl_seconds: float = TTL_SECONDS) -> None:
        self.url = url
        self.interval_us = round(ttl_seconds * 1e6 / 3)
        self._ttl_seconds = ttl_seconds
        self.kind: Kind = kind
        self.keys = KEYS[kind]
        self.cap = cap
        self.client: Any = open_sync(parse_url(url))
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.enter_context(self.client)
        if self.kind == "tasks":
            async with await ServerConnection.open(self.url) as connection:
                tasks = TaskAdmissionController(connection, POOL)
                await tasks.set_limit("submission", self.cap)
                await tasks.queue.enqueue([task(f"t{i}") for i in range(READY_TASKS)])
                await tasks.close()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(self, count: int = 1, url: str | None = None) -> list[Member]:
        """Start processes; returns once each is a member."""
        members = []
        for _ in range(count):
            terms = (url or self.url, self.kind, str(self.cap), str(self._ttl_seconds))
            args = ("-m", "tests.member_process", *terms)
            process = await asyncio.create_subprocess_exec(
                sys.executable, *args, stdin=PIPE, stdout=PIPE, cwd=_ROOT
            )
            member = Member(process=process)
            listening = asyncio.create_task(member.listen())
            self._stack.push_async_callback(self._end, member, listening)
            members.append(member)
        await wait_until(lambda: all(m.is_ready for m in members), timeout=PATIENCE_SECONDS)
        return members

    async def _end(self, member: Member, listening: asyncio.Task[None]) -> None:
        if member.process.returncode is None:
            member.process.kill()
        await member.process.wait()
        await listening

    # -- what the server knows

    def now_us(self) -> int:
        """Return the server's time."""
        seconds, microseconds = self.client.time()
        return int(seconds * 1_000_000 + microseconds)

    def name_of(self, member: Member) -> str:
        """Return the one membership of a process."""
        (name,) = [name for name in self.names() if _is_of(name, member)]
        return name

    def names(self) -> list[str]:
        """Return all memberships."""
        return [name.decode() for name in self.client.zrange(self.keys["members"], 0, -1)]

    def expires_us(self, name: str) -> int:
        """Return when a membership's last heartbeat is a TTL old."""
        return int(self.client.zscore(self.keys["members"], name))

    def leases_of(self, member: Member) -> int:
        """Return how many leases a process holds."""
        return self._held_by(member, "lease")

    def _held_by(self, member: Member, what: str) -> int:
        held = [name.decode() for name in self.client.zrange(self.keys["held"], 0, -1)]
        return sum(f"\0{what}\0" in name and _is_of(name, member) for name in held)

    def waits(self, member: Member) -> int:
        """Return how many more leases a process waits for."""
        if self.kind == "requests":
            return self._held_by(member, "waiter")
        idle = self.client.zrange(self.keys["idle"], 0, -1, withscores=True)
        return sum(int(slots) for name, slots in idle if _is_of(name.decode(), member))

    async def let_wait(self, member: Member, count: int) -> None:
        """Let a process wait for more leases than there are."""
        before = self.waits(member)
        member.order("take", count)
        await wait_until(lambda: self.waits(member) == before + count, timeout=PATIENCE_SECONDS)

    async def let_hold(self, member: Member, count: int) -> None:
        """Let a process take leases that are free."""
        before = len(member.granted)
        member.order("take", count)
        await member.until_granted(before + count)

    def is_heard(self, name: str) -> bool:
        """Return whether anybody listens on a membership's channel."""
        return bool(self.client.pubsub_numsub(self.keys.wake_channel(name))[0][1])

    def events(self, kind: str) -> list[dict[str, str]]:
        """Return the shard's events of a kind, in order."""
        found = []
        for _id, fields in self.client.xrange(self.keys["events"]):
            event = {key.decode(): value.decode() for key, value in fields.items()}
            if event["kind"] == kind:
                found.append(event)
        return found

    def ends(self) -> dict[str, dict[str, str]]:
        """Return the events that ended memberships, by membership, but of those that left."""
        ended = self.events("member_expired")
        return {event["member_id"]: event for event in ended if event["reason"] != "left"}

    async def until_ended(self, *names: str) -> list[dict[str, str]]:
        """Wait until memberships were ended by others; return these events, in that order."""
        await wait_until(lambda: set(names) <= set(self.ends()), timeout=PATIENCE_SECONDS)
        return [self.ends()[name] for name in names]

    def leases_lost_by(self, name: str) -> int:
        """Return how many leases ended with a membership."""
        lost = self.events(LEASE_EXPIRED[self.kind])
        return sum(event["member_id"] == name for event in lost)

    async def check_books(self) -> None:
        """Check that the ledgers agree with the leases."""
        async with await ServerConnection.open(self.url) as connection:
            if self.kind == "tasks":
                report = await audit_pool(connection, POOL)
            else:
                report = await RequestPressureSnapshotProvider(connection).audit(MODEL)
        assert report.ok, report.differences


def _is_of(name: str, member: Member) -> bool:
    """Whether a membership, or what it holds, is a process's: it begins with pid and 8 digits."""
    return name.partition("-")[0][:-8] == f"{member.process.pid:x}"
