"""A pool's queue by itself: the time of an admit cycle, and the bytes of a queued task."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from arq.jobs import serialize_job
from arq.utils import timestamp_ms

from bench.figures import p95
from bench.harness import InvariantBrokenError, new_runner
from forebay.contracts.identity import SUBMISSION, TaskGroupKey, TaskGroupKind, TaskGroupSpec
from forebay.contracts.outcomes import TaskCompleted
from forebay.contracts.settings import MemberSettings
from forebay.contracts.tasks import SchedulableTask, SchedulerResourceRequest, TaskAdmissionLease
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.snapshots import PoolReader, PoolSnapshot, audit_pool
from forebay.workers.arq.serialization import dump_job

POOL: Final = "default"
RESOURCES: Final = 7
"""Each is held whole: groups that ask for it are blocked."""
SUBMITS_AT_ONCE: Final = 500
IN_PROGRESS_SECONDS: Final = 60.0
SETTINGS: Final = MemberSettings(recheck_seconds=60.0, call_timeout_seconds=60.0)


def _group(number: int) -> TaskGroupSpec:
    return TaskGroupSpec(key=TaskGroupKey(kind=TaskGroupKind.LOCAL, identity=(f"bench-{number}",)))


def _task(number: int, group: int, payload: bytes, *asks: str) -> SchedulableTask:
    return SchedulableTask(
        task_id=f"{number:032x}",
        payload=payload,
        group=_group(group),
        resource_request=SchedulerResourceRequest(amounts=dict.fromkeys((SUBMISSION, *asks), 1)),
    )


async def _submit(controller: TaskAdmissionController, tasks: list[SchedulableTask]) -> None:
    for first in range(0, len(tasks), SUBMITS_AT_ONCE):
        part = tasks[first : first + SUBMITS_AT_ONCE]
        await asyncio.gather(*(controller.queue.submit(task) for task in part))


async def _admit(controller: TaskAdmissionController, slots: int) -> tuple[TaskAdmissionLease, ...]:
    admission = await controller.admit(slots, in_progress_seconds=IN_PROGRESS_SECONDS)
    return admission.leases


async def _check_books(connection: ServerConnection) -> None:
    report = await audit_pool(connection, POOL)
    if not report.ok:
        raise InvariantBrokenError(
            f"the books of the pool do not agree: {report}; this is a defect, please report it."
        )


def check_books(url: str) -> dict[str, Any]:
    """Check the default pool's books, and return what it held then, JSON-compatible.

    Raises:
        InvariantBrokenError: they do not agree.
    """

    async def look() -> PoolSnapshot:
        async with await ServerConnection.open(url) as connection:
            await _check_books(connection)
            return await PoolReader(connection, pool_shard(POOL)).snapshot()

    with new_runner() as runner:
        found = runner.run(look())
    return {
        "captured_at": found.captured_at,
        "state": found.state,
        "policy": found.policy,
        "queued": found.queue.queued_total,
        "running": found.running,
        "delayed": found.delayed,
        "parked": found.parked,
        "limits": dict(found.admission.limits),
        "leased": dict(found.admission.leased),
    }


async def _cycles(url: str, groups: int, count: int) -> dict[str, float]:
    """Admit and finish one at a time; of eight groups seven want what is held whole."""
    payload = b"{}"
    async with await ServerConnection.open(url, SETTINGS) as connection:
        controller = TaskAdmissionController(connection)
        resources = [f"bench/{n}" for n in range(RESOURCES)]
        for resource in resources:
            await controller.set_limit(resource, 1)
        await controller.set_limit(SUBMISSION, 10_000)
        holders = [_task(n, n, payload, resource) for n, resource in enumerate(resources)]
        await _submit(controller, holders)
        held = await _admit(controller, RESOURCES + 1)
        blocked = [group for group in range(groups) if group % (RESOURCES + 1)]
        free = [group for group in range(groups) if group % (RESOURCES + 1) == 0]
        tasks = [
            _task(RESOURCES + group, group, payload, resources[group % (RESOURCES + 1) - 1])
            for group in blocked
        ]
        first = RESOURCES + groups
        tasks += [_task(first + n, free[n % len(free)], payload) for n in range(count)]
        await _submit(controller, tasks)
        times = []
        for _ in range(count):
            start = time.perf_counter()
            leases = await _admit(controller, 1)
            times.append(time.perf_counter() - start)
            await asyncio.gather(*(controller.finish(lease, TaskCompleted()) for lease in leases))
            if len(leases) != 1:
                raise InvariantBrokenError(f"{len(leases)} tasks were admitted, expected one.")
        await asyncio.gather(*(controller.finish(lease, TaskCompleted()) for lease in held))
        await _check_books(connection)
        await controller.close()
    return {f"{groups}_groups.admit_p95_ms": p95(times) * 1e3}


def cycles(sizes: list[int], count: int) -> dict[str, float]:
    """Return the p95 of an admit cycle in ms, by number of waiting groups, most of them blocked."""
    found: dict[str, float] = {}
    for groups in sizes:
        with EmbeddedServer() as server, new_runner() as runner:
            found |= runner.run(_cycles(server.url, groups, count))
    return found


async def _queued_bytes(url: str, count: int) -> float:
    payload = serialize_job("noop", (), {}, None, timestamp_ms(), serializer=dump_job)
    async with await ServerConnection.open(url, SETTINGS) as connection:
        controller = TaskAdmissionController(connection)
        await controller.set_limit(SUBMISSION, 10_000)
        await _submit(controller, [_task(0, 0, payload)])
        before = int((await connection.client.info("memory"))["used_memory"])
        await _submit(controller, [_task(1 + n, n % 10, payload) for n in range(count)])
        after = int((await connection.client.info("memory"))["used_memory"])
        await controller.close()
    return (after - before) / count - len(payload)


def queued_bytes(count: int) -> float:
    """Return the bytes of the server for each queued task, beyond its payload."""
    with EmbeddedServer() as server, new_runner() as runner:
        return runner.run(_queued_bytes(server.url, count))
