"""Looking at task pools without changing them (design 04; design 07, *redis-cli*)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import unquote

from redis.exceptions import RedisError

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import TaskGroupKey, TaskGroupKind, TaskGroupSpec
from forebay.contracts.snapshots import AuditReport
from forebay.contracts.task_policies import MOST_CONSIDERED, QueueView, TaskAdmissionView
from forebay.contracts.tasks import Amounts, TaskAdmissionBlockSummary
from forebay.coordinator.keys import POOL_TAG, ShardKeys, check_id, pool_shard
from forebay.coordinator.requests.snapshots import decode_audit
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.server.refusals import connection_error, reading_error
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.denials import decode_reasons
from forebay.coordinator.tasks.names import parse_signature

MAX_ROWS: Final = 100
"""Rows of each list that is shown (``lua/tasks/look.lua``, ``snapshot.lua``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """One instant of a pool.

    Attributes:
        exists: whether anybody has used the pool.
        captured_at: server time in seconds; 0 where nobody has used the pool.
        state: ``open``, ``paused`` or ``draining``.
        policy: ``strict`` or ``borrow``.
        running: tasks that run.
        delayed: tasks whose time has not come.
        parked: tasks that ask for more than a limit.
        queue: what waits, of the first 100 groups.
        admission: limits, ledger and policy state.
        blocked: why ready tasks are not admitted now.
        is_complete: whether every ready task of these groups was counted in the demand.
    """

    exists: bool
    captured_at: float
    state: str
    policy: str
    running: int
    delayed: int
    parked: int
    queue: QueueView
    admission: TaskAdmissionView
    blocked: TaskAdmissionBlockSummary
    is_complete: bool


class PoolReader:
    """Looks at one pool.

    Args:
        reader: the process's connection to the server.
        keys: of the pool.
    """

    def __init__(self, reader: ServerConnection, keys: ShardKeys) -> None:
        self._reader = reader
        self._keys = keys

    async def snapshot(self) -> PoolSnapshot:
        """Return one instant of the pool; writes nothing.

        Raises:
            CoordinatorError: the server could not be used.
        """
        reply = await self._reader.read("tasks/snapshot", self._keys.all, [MAX_ROWS])
        return decode_snapshot(json.loads(reply))


def decode_snapshot(capture: Mapping[str, Any]) -> PoolSnapshot:
    """Decode a capture; pure."""
    if not capture["generation"]:
        capture = _NOBODYS
    rows = list(capture["groups"])
    limits, leased = _by_resource(capture["limits"]), _by_resource(capture["leased"])
    kept = _by_resource(capture["kept"])
    due_us = capture["due_us"]
    return PoolSnapshot(
        exists=bool(capture["generation"]),
        captured_at=int(capture["now_us"]) / 1e6,
        state=capture["state"] or "open",
        policy=capture["policy"] or "strict",
        running=capture["running"],
        delayed=capture["delayed"],
        parked=capture["parked"],
        queue=_queue_view(capture["queued"], rows),
        admission=_admission_view(limits, leased, kept, rows),
        blocked=TaskAdmissionBlockSummary(
            queued_count=capture["queued"],
            reasons=decode_reasons(capture["reasons"]),
            available_at=float(due_us) / 1e6 if due_us else None,
            diagnostics={"delayed": capture["delayed"], "parked": capture["parked"]},
        ),
        is_complete=capture["is_complete"],
    )


_NOBODYS: Final[Mapping[str, Any]] = {
    "generation": "",
    "now_us": "0",
    "state": "",
    "policy": "",
    **dict.fromkeys(("queued", "delayed", "parked", "running"), 0),
    **dict.fromkeys(("limits", "leased", "kept", "groups", "reasons"), ()),
    "is_complete": True,
    "due_us": "",
}


def _by_resource(amounts: Any) -> dict[str, int]:
    return {unquote(name): int(float(amount)) for name, amount in dict(amounts).items()}


def group_of(name: str) -> TaskGroupKey:
    """Return the group of a name as it stands in keys."""
    kind, *identity = map(unquote, name.split("/"))
    return TaskGroupKey(kind=TaskGroupKind(kind), identity=tuple(identity))


def spec_of(row: Mapping[str, Any]) -> TaskGroupSpec:
    """Return key, weight and limit of a group's row in a capture."""
    limit = row["admitted_limit"]
    return TaskGroupSpec(
        key=group_of(row["name"]),
        weight=row["weight"],
        admitted_limit=int(limit) if limit else None,
    )


def _demand(row: Mapping[str, Any]) -> Counter[str]:
    demand: Counter[str] = Counter()
    for signature, count in dict(row["demand"]).items():
        for resource, amount in parse_signature(signature).items():
            demand[resource] += amount * count
    return demand


def _queue_view(queued: int, rows: Sequence[Mapping[str, Any]]) -> QueueView:
    waiting = {str(group_of(row["name"])): row for row in rows if row["waiting"]}
    firsts = {name: parse_signature(row["signature"]) for name, row in waiting.items()}
    fitting = [name for name, row in waiting.items() if row["fits"]]
    peer_demand = Counter(resource for name in fitting for resource in firsts[name])
    return QueueView(
        queued_total=queued,
        queued_by_group={name: row["waiting"] for name, row in waiting.items()},
        demand_by_group={name: _demand(row) for name, row in waiting.items()},
        groups={name: spec_of(row) for name, row in waiting.items()},
        first_candidates=firsts,
        considered=tuple(fitting[:MOST_CONSIDERED]),
        peer_demand=peer_demand,
    )


def _admission_view(
    limits: dict[str, int],
    leased: dict[str, int],
    kept: dict[str, int],
    rows: Sequence[Mapping[str, Any]],
) -> TaskAdmissionView:
    def by_group(field: str) -> dict[str, Amounts]:
        return {str(group_of(row["name"])): parse_signature(row[field]) for row in rows}

    return TaskAdmissionView(
        limits=limits,
        available={
            name: max(0, limit - leased.get(name, 0) - kept.get(name, 0))
            for name, limit in limits.items()
        },
        leased=leased,
        leased_by_group=by_group("out"),
        running_by_group={str(group_of(row["name"])): row["running"] for row in rows},
        debt_by_group=by_group("debt"),
    )


async def used_pools(connection: ServerConnection) -> list[str]:
    """Return the names of the pools that any member ever joined.

    Raises:
        CoordinatorError: the server could not be used.
    """
    tags = [tag for tag in await connection.shards() if tag.startswith(POOL_TAG)]
    names = [unquote(tag.removeprefix(POOL_TAG)) for tag in tags]
    return [name for name in names if _is_name(name)]


def _is_name(name: str) -> bool:
    try:
        check_id("pool", name)
    except ConfigurationError:
        return False  # another program wrote it into the index
    return True


async def audit_pool(connection: ServerConnection, name: str) -> AuditReport:
    """Work out a pool's books from its tasks and leases, and compare; writes nothing.

    Raises:
        ConfigurationError: a wrong name.
        CoordinatorError: the server could not be used.
    """
    return decode_audit(await connection.read("tasks/audit", pool_shard(name).all, ["json"]))


async def count_serving(connection: ServerConnection, name: str, function: str) -> int:
    """Return how many members of a pool run a function; writes nothing.

    Raises:
        ConfigurationError: a wrong name.
        CoordinatorError: the server could not be used.
    """
    functions = pool_shard(name)["functions"]
    try:
        async with connection.deadline():
            found = await connection.client.hget(functions, check_id("function", function))
    except (RedisError, OSError) as error:
        raise connection_error(error, connection.address, "counting workers") from error
    return int(found or 0)


async def pool_lines(connection: ServerConnection, name: str) -> list[str]:
    """Return one instant of a pool as aligned lines for people; writes nothing.

    Raises:
        ConfigurationError: a wrong name.
        CoordinatorError: the server could not be used.
    """
    keys = pool_shard(name).all
    show = script("tasks/look")
    try:
        async with connection.deadline():
            reply = connection.client.eval_ro(show.text, len(keys), *keys, "show", str(MAX_ROWS))
            lines = await cast("Awaitable[list[bytes]]", reply)
    except (RedisError, OSError) as error:
        raise reading_error(show, keys, error, connection.address) from error
    return [line.decode() for line in lines]
