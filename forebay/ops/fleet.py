"""One look at the whole fleet: request shards, pools, runs, and the events since the last look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from redis.exceptions import RedisError

from forebay.contracts.errors import SchemaMismatch, ShardDamaged
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.runs import RunSpec
from forebay.contracts.snapshots import GlobalSnapshot
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.keys import ShardKeys, pool_shard, request_shard
from forebay.coordinator.requests.snapshots import (
    RequestPressureSnapshotProvider,
    provider_model_of,
)
from forebay.coordinator.runs.looking import RunLook, RunReader
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.tasks.snapshots import PoolReader, PoolSnapshot

MOST_SHARDS: Final = 200
"""Request shards, and pools, that one look reads; of further ones the count alone is told."""
MOST_RUNS: Final = 50
"""Runs of a pool that one look reads."""
MOST_EVENTS: Final = 20
"""Events of a shard that one look reads: its newest."""
_POOL_TAG: Final = "pool:"

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
        problems: shards that could not be read, a sentence each.
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
    """What a look has found so far."""

    models: dict[ProviderModelKey, GlobalSnapshot] = field(default_factory=dict)
    pools: dict[str, PoolSnapshot] = field(default_factory=dict)
    runs: list[tuple[str, RunLook]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class FleetReader:
    """Looks at everything on one server; writes nothing.

    Args:
        coordinator: connection to the server; left open.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._client: Any = coordinator.client  # see Coordinator.client
        self._pressure = RequestPressureSnapshotProvider(coordinator)
        self._specs: dict[tuple[str, str], RunSpec] = {}
        self._newest: dict[str, bytes] = {}

    async def look(self, *, with_events: bool = True) -> Fleet:
        """Return the fleet as it is now.

        Args:
            with_events: whether to read the events since the last look that read them.

        Raises:
            CoordinatorError: the server could not be used.
        """
        tags = await self._coordinator.shards()
        keys = [key for tag in tags if (key := provider_model_of(tag))]
        pools = [unquote(tag.removeprefix(_POOL_TAG)) for tag in tags if tag.startswith(_POOL_TAG)]
        unread = max(0, len(keys) - MOST_SHARDS) + max(0, len(pools) - MOST_SHARDS)
        keys, pools = keys[:MOST_SHARDS], pools[:MOST_SHARDS]
        found = _Found()
        for key in keys:
            await self._look_at_model(key, found)
        for pool in pools:
            await self._look_at_pool(pool, found)
        shards = {str(key): request_shard(key) for key in keys}
        shards |= {f"pool {pool}": pool_shard(pool) for pool in pools}
        return Fleet(
            at=await self._server_time(),
            models=found.models,
            pools=found.pools,
            runs=found.runs,
            events=await self._new_events(shards) if with_events else (),
            problems=found.problems,
            unread=unread,
        )

    async def model(self, key: ProviderModelKey) -> GlobalSnapshot:
        """Return one provider/model as it is now; of one that nobody registered, zeros.

        Raises:
            CoordinatorError: the server or the shard could not be used.
        """
        return await self._pressure.global_snapshot(key)

    async def last_events(self, shard: ShardKeys) -> list[Row]:
        """Return the last events of one shard, the newest first.

        Raises:
            CoordinatorError: the server could not be used.
        """
        try:
            entries = await self._client.xrevrange(shard["events"], count=MOST_EVENTS)
        except (RedisError, OSError) as error:
            raise self._unavailable(error, "reading events") from error
        return [_event(shard.tag, fields) for _id, fields in entries]

    async def _look_at_model(self, key: ProviderModelKey, found: _Found) -> None:
        try:
            found.models[key] = await self._pressure.global_snapshot(key)
        except (SchemaMismatch, ShardDamaged) as error:
            found.problems.append(f"{key}: {error}")

    async def _look_at_pool(self, pool: str, found: _Found) -> None:
        try:
            found.pools[pool] = await PoolReader(self._coordinator, pool_shard(pool)).snapshot()
            found.runs += [(pool, look) for look in await self._runs(pool)]
        except (SchemaMismatch, ShardDamaged) as error:
            found.problems.append(f"pool {pool}: {error}")

    async def _runs(self, pool: str) -> list[RunLook]:
        reader = RunReader(self._coordinator, pool)
        ids = (await reader.ids())[:MOST_RUNS]
        for gone in [key for key in self._specs if key[0] == pool and key[1] not in ids]:
            del self._specs[gone]
        looks = []
        for run_id in ids:
            spec = self._specs.get((pool, run_id)) or await reader.spec(run_id)
            if spec is not None:
                self._specs[pool, run_id] = spec
                looks.append(await reader.look(spec))
        return [look for look in looks if look is not None]

    async def _new_events(self, shards: Mapping[str, ShardKeys]) -> list[Row]:
        """Return each shard's events since the last look, at most its newest twenty, by time."""
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for shard in shards.values():
                    newest = self._newest.get(shard.tag)
                    after = "-" if newest is None else b"(" + newest
                    pipe.xrevrange(shard["events"], min=after, count=MOST_EVENTS)
                replies = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise self._unavailable(error, "reading events") from error
        events = []
        for (name, shard), entries in zip(shards.items(), replies, strict=True):
            if isinstance(entries, list) and entries:  # else a key that is no stream any more
                self._newest[shard.tag] = entries[0][0]
                events += [_event(name, fields) for _id, fields in entries]
        return sorted(events, key=lambda event: event["at"])

    async def _server_time(self) -> float:
        try:
            seconds, microseconds = await self._client.time()
        except (RedisError, OSError) as error:
            raise self._unavailable(error, "reading the time") from error
        return float(seconds) + float(microseconds) / 1e6

    def _unavailable(self, error: RedisError | OSError, doing: str) -> Exception:
        return connection_error(error, self._coordinator.address, doing)


def _event(shard: str, fields: Mapping[bytes, bytes]) -> Row:
    """Return an event of a stream as a JSON object; ``at`` is server time in seconds."""
    text = {
        name.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
        for name, value in fields.items()
    }
    at_us = text.pop("at_us", "")
    at = int(at_us) / 1e6 if at_us.isdecimal() else 0.0
    return {"shard": shard, "at": at, "kind": text.pop("kind", ""), "fields": text}
