"""One look at the whole fleet: request shards, pools, runs, and the events since the last look."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import RedisError

from forebay.contracts.errors import ForebayError
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.runs import RunSpec
from forebay.contracts.snapshots import GlobalSnapshot
from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.runs.looking import RunLook, RunReader
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import PoolReader, PoolSnapshot
from forebay.ops.listing import ListedShard, listed

MOST_RUNS: Final = 50
"""Runs of a pool that one look reads."""
MOST_EVENTS: Final = 20
"""Events of a shard that one look reads: its newest."""
READS_AT_ONCE: Final = 8
"""Shards and runs that are read at the same time, each over a connection of its own."""
LOOK_SECONDS: Final = 4.0
"""Time for reading all shards; one without an answer by then becomes a problem."""
_UNREADABLE: Final = (ForebayError, ValueError, LookupError, TypeError)
"""Errors of reading a shard: typed errors, or what decoding meets in keys of other programs."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The fleet at one instant; each shard in an instant of its own.

    Attributes:
        at: server time in seconds.
        models: request shards, by provider/model.
        pools: task pools, by name.
        runs: runs that are not over, with the pool of each.
        events: events since the last look, the oldest first.
        problems: a sentence for each shard, or part of a shard, that could not be read.
        unread: how many shards are beyond the bound of a look.
    """

    at: float
    models: Mapping[ProviderModelKey, GlobalSnapshot]
    pools: Mapping[str, PoolSnapshot]
    runs: Sequence[tuple[str, RunLook]]
    events: Sequence[Row]
    problems: Sequence[str] = ()
    unread: int = 0


@dataclass(slots=True)
class _Found:
    """The part of one shard that a look has read, and why it has not read the rest."""

    snapshot: GlobalSnapshot | PoolSnapshot | None = None
    runs: list[RunLook] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    is_complete: bool = False

    def problems(self, shard: ListedShard) -> Iterator[str]:
        yield from (f"{shard.name}: {failure}" for failure in self.failures)
        if not self.is_complete:
            yield f"{shard.name}: no answer within {LOOK_SECONDS:g} s"


class FleetReader:
    """Looks at everything on one server; writes nothing.

    Args:
        connection: connection to the server; left open.
    """

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._pressure = RequestPressureSnapshotProvider(connection)
        self._gate = asyncio.Semaphore(READS_AT_ONCE)
        self._specs: dict[tuple[str, str], RunSpec] = {}
        self._newest: dict[str, bytes] = {}

    async def look(self, *, with_events: bool = True) -> Fleet:
        """Return the fleet as it is now.

        A shard that cannot be read, or does not answer in time, is told in ``problems`` and hides
        no other.

        Args:
            with_events: whether to read the events since the last look that read them.

        Raises:
            ForebayError: the server could not be used.
        """
        listing = await listed(self._connection)
        found = {shard: _Found() for shard in listing.shards}
        try:
            async with asyncio.timeout(LOOK_SECONDS), asyncio.TaskGroup() as group:
                for shard, part in found.items():
                    group.create_task(self._read(shard, part, with_events=with_events))
        except TimeoutError:
            pass  # _Found.problems tells of each shard that is not complete
        failures = [text for shard, part in found.items() for text in part.problems(shard)]
        return Fleet(
            at=await self._server_time(),
            models={
                shard.of: part.snapshot
                for shard, part in found.items()
                if isinstance(shard.of, ProviderModelKey)
                and isinstance(part.snapshot, GlobalSnapshot)
            },
            pools={
                shard.of: part.snapshot
                for shard, part in found.items()
                if isinstance(shard.of, str) and isinstance(part.snapshot, PoolSnapshot)
            },
            runs=[(str(shard.of), run) for shard, part in found.items() for run in part.runs],
            events=sorted(
                (event for part in found.values() for event in part.events),
                key=lambda event: event["at"],
            ),
            problems=[*failures, *listing.foreign],
            unread=listing.unread,
        )

    async def model(self, key: ProviderModelKey) -> GlobalSnapshot:
        """Return one provider/model as it is now; zeros for one that no member registered.

        Raises:
            CoordinatorError: the server or the shard could not be used.
        """
        return await self._pressure.global_snapshot(key)

    async def last_events(self, shard: ShardKeys) -> list[Row]:
        """Return the last events of one shard, the newest first.

        Raises:
            ForebayError: the server or the stream could not be used.
        """
        entries = await self._entries(shard, after="-")
        return [_event(shard.tag, *entry) for entry in entries]

    async def _read(self, shard: ListedShard, found: _Found, *, with_events: bool) -> None:
        """Read each part of a shard, whether or not the other parts can be read."""
        async with self._gate:
            try:
                if isinstance(shard.of, str):
                    found.snapshot = await PoolReader(self._connection, shard.keys).snapshot()
                else:
                    found.snapshot = await self._pressure.global_snapshot(shard.of)
            except _UNREADABLE as error:
                found.failures.append(_said(error))
            try:
                found.events = await self._new_events(shard) if with_events else []
            except _UNREADABLE as error:
                found.failures.append(_said(error))
        if isinstance(shard.of, str) and found.snapshot is not None:
            await self._read_runs(shard.of, found)
        found.is_complete = True

    async def _read_runs(self, pool: str, found: _Found) -> None:
        reader = RunReader(self._connection, pool)
        try:
            async with self._gate:
                ids = (await reader.ids())[:MOST_RUNS]
        except _UNREADABLE as error:
            found.failures.append(_said(error))
            return
        for gone in [key for key in self._specs if key[0] == pool and key[1] not in ids]:
            self._specs.pop(gone, None)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._run(reader, pool, run_id, found)) for run_id in ids]
        found.runs = [run for task in tasks if (run := task.result()) is not None]

    async def _run(
        self, reader: RunReader, pool: str, run_id: str, found: _Found
    ) -> RunLook | None:
        async with self._gate:
            try:
                spec = self._specs.get((pool, run_id)) or await reader.spec(run_id)
                if spec is None:
                    return None
                self._specs[pool, run_id] = spec
                return await reader.look(spec)
            except _UNREADABLE as error:
                found.failures.append(f"run {run_id}: {_said(error)}")
                return None

    async def _new_events(self, shard: ListedShard) -> list[Row]:
        """Return a shard's events since the last look, at most its newest twenty."""
        newest = self._newest.get(shard.keys.tag)
        entries = await self._entries(shard.keys, after="-" if newest is None else b"(" + newest)
        if entries:
            self._newest[shard.keys.tag] = entries[0][0]
        return [_event(shard.name, *entry) for entry in entries]

    async def _entries(self, shard: ShardKeys, *, after: str | bytes) -> list[Any]:
        try:
            return list(
                await self._connection.ask(
                    shard["events"],
                    lambda node: node.client.xrevrange(
                        shard["events"], min=after, count=MOST_EVENTS
                    ),
                )
            )
        except (RedisError, OSError) as error:
            raise self._unavailable(error, "reading events") from error

    async def _server_time(self) -> float:
        try:
            return await self._connection.time()
        except (RedisError, OSError) as error:
            raise self._unavailable(error, "reading the time") from error

    def _unavailable(self, error: RedisError | OSError, doing: str) -> Exception:
        return connection_error(error, self._connection.address, doing)


def _said(error: Exception) -> str:
    """Return why a part of a shard could not be read, as a sentence."""
    if isinstance(error, ForebayError):
        return str(error)
    what = " ".join(str(error).split())[:200]
    return f"a key holds what this version does not write ({type(error).__name__}: {what})"


def _event(shard: str, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Row:
    """Return an event of a stream as a JSON object; ``at`` is server time in seconds."""
    text = {
        name.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
        for name, value in fields.items()
    }
    at_us = text.pop("at_us", "")
    at = int(at_us) / 1e6 if at_us.isdecimal() else 0.0
    kind = text.pop("kind", "")
    return {"shard": shard, "id": entry_id.decode(), "at": at, "kind": kind, "fields": text}
