"""Task pools of one process: tasks to submit, and a worker that runs nothing but counts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from forebay.contracts.identity import TaskGroupKey, TaskGroupKind, TaskGroupSpec
from forebay.contracts.outcomes import TaskCompleted
from forebay.contracts.tasks import SchedulableTask, SchedulerResourceRequest, TaskAdmissionLease
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.puller import TaskPuller
from forebay.coordinator.tasks.snapshots import audit_pool
from tests.support import wait_until

POOL: Final = "tasks"
DONE: Final = TaskCompleted(result=pool_shard(POOL)["queue"].encode(), result_seconds=60.0)
"""With a result that names its pool, as arq's do."""


def group(name: str = "g", weight: float = 1.0, limit: int | None = None) -> TaskGroupSpec:
    key = TaskGroupKey(kind=TaskGroupKind.LOCAL, identity=(name,))
    return TaskGroupSpec(key=key, weight=weight, admitted_limit=limit)


def task(
    task_id: str,
    of: TaskGroupSpec | None = None,
    *,
    payload: bytes = b"payload",
    function: str | None = None,
    delay_seconds: float = 0.0,
    **amounts: int,
) -> SchedulableTask:
    """Return a task that asks for amounts besides its submission."""
    return SchedulableTask(
        task_id=task_id,
        payload=payload,
        group=of or group(),
        resource_request=SchedulerResourceRequest(amounts={"submission": 1, **amounts}),
        function=function,
        not_before=time.time() + delay_seconds if delay_seconds else None,
    )


@asynccontextmanager
async def joined(
    connection: ServerConnection, pool: str = POOL, **how: Any
) -> AsyncIterator[TaskAdmissionController]:
    """Use a pool; in the end its books must agree."""
    controller = TaskAdmissionController(connection, pool, **how)
    try:
        yield controller
    finally:
        await controller.close()
        assert (await audit_pool(connection, pool)).ok


class Work:
    """A worker that starts what it is given as long as a slot is free.

    Attributes:
        started: leases of the tasks that it started, in order.
    """

    def __init__(
        self,
        connection: ServerConnection,
        tasks: TaskAdmissionController,
        slots: int,
        *,
        takes_pushes: bool = True,
    ) -> None:
        self.tasks = tasks
        self.slots = slots
        self.started: list[TaskAdmissionLease] = []
        self._client = connection.client
        self.puller = TaskPuller(
            tasks,
            free_slots=lambda: self.slots,
            start=self._start,
            expired=lambda _task_id: None,
            lost=lambda _task_id, _members: None,
            in_progress_seconds=60.0,
            takes_pushes=takes_pushes,
        )

    def _start(self, lease: TaskAdmissionLease) -> None:
        self.slots -= 1
        self.started.append(lease)

    @property
    def names(self) -> list[str]:
        return [lease.item.task_id for lease in self.started]

    async def be_idle(self) -> None:
        """Wait until the pool knows how many slots are free."""
        self.puller.look()

        async def is_known() -> bool:
            member = self.tasks.session.membership
            if member is None:
                return False
            told = await self._client.zscore(self.tasks.keys["idle"], member.member_id)
            return bool(told == self.slots)

        await wait_until(is_known)

    async def finish(self) -> None:
        """Finish all that it started."""
        while self.started:
            assert (await self.tasks.finish(self.started.pop(0), DONE)).released
            self.slots += 1
