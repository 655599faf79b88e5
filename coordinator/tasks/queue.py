"""``FairTaskQueue``: submits tasks to a pool's queue and removes waiting ones.

Rules: design 02, *Tasks*; design 04, *The queue*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from forebay.contracts.checks import check_type
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.task_policies import QueueView
from forebay.contracts.tasks import (
    SchedulableTask,
    TaskAdmissionDenied,
    TaskAdmissionError,
    TaskDenialReason,
)
from forebay.coordinator.logs import Logger
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.session import Session
from forebay.coordinator.tasks.denials import check_accepted
from forebay.coordinator.tasks.id_holders import holder_of
from forebay.coordinator.tasks.operations import EndWaiting, Submit, WhyEnded
from forebay.coordinator.tasks.snapshots import PoolReader

MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
_MOST_WARNED_OF: Final = 1000

log = Logger("forebay.tasks")


class FairTaskQueue:
    """Adds tasks to one pool's queue and removes waiting ones; admission is not decided here.

    Args:
        session: the pool's.
        reader: looks at the pool.
        server: the process's connection, to look who else holds an id.
        pool: its name, for the log.
    """

    def __init__(
        self, session: Session, reader: PoolReader, server: ServerConnection, pool: str
    ) -> None:
        self._pool = pool
        self._session = session
        self._reader = reader
        self._server = server
        self._warned_of: set[str] = set()  # functions whose tasks wait, as nobody serves them

    async def submit(self, task: SchedulableTask) -> bool:
        """Put a task into the queue, once.

        Returns:
            Whether it is new; False where its id is queued, running or has a result.

        Raises:
            TaskAdmissionError: it was refused and nothing was queued: a resource that is unknown or
                asked for above its limit, a payload that is too large, a pool that is draining, an
                id that another pool or program holds.
            ConfigurationError: a wrong name.
            CoordinatorError: the shared state could not be used.
        """
        _check_task(task)
        result = await self._session.ask(Submit(task))
        return await self._is_new(result, task)

    async def _is_new(self, result: list[Any], task: SchedulableTask) -> bool:
        """Return whether a submitted task is new; raise where it was refused."""
        if result == ["known", "elsewhere"]:
            raise _held_elsewhere(task, await holder_of(self._server, task.task_id))
        is_new = check_accepted(result, f"task {task.task_id!r}", task)
        if is_new and task.function is not None:
            self._warn_if_unserved(task.function, task, is_served=result == ["accepted"])
        return is_new

    def _warn_if_unserved(self, function: str, task: SchedulableTask, *, is_served: bool) -> None:
        """Warn once of a function that no live worker serves; again after it was served."""
        if is_served:
            self._warned_of.discard(function)
        elif function not in self._warned_of:
            if len(self._warned_of) >= _MOST_WARNED_OF:
                self._warned_of.clear()
            self._warned_of.add(function)
            log.warning(
                "task_waits_for_its_function",
                pool=self._pool,
                function=function,
                task_id=task.task_id,
                remedy="no live worker of this pool serves it; start one that does, and this task"
                " and others of the function are taken",
            )

    async def enqueue(self, items: Iterable[SchedulableTask]) -> list[str]:
        """Put tasks into the queue, each once, in one or few calls.

        Returns:
            The ids that were accepted: new ones, and those that are known already.

        Raises:
            TaskAdmissionError: an id stands twice in ``items`` or a payload is too large, and
                nothing was queued; or the first one that the pool refused, the others being queued.
            ConfigurationError, CoordinatorError: as `submit`.
        """
        tasks = list(items)
        for task in tasks:
            _check_task(task)
        _check_distinct(tasks)
        asked = [self._session.ask(Submit(task)) for task in tasks]
        # All of them: an error that nobody fetches would be logged by asyncio, one line each.
        answers = await asyncio.gather(*asked, return_exceptions=True)
        accepted, refused = [], None
        for task, answer in zip(tasks, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            try:
                await self._is_new(answer, task)
            except TaskAdmissionError as error:
                refused = refused or error
            else:
                accepted.append(task.task_id)
        if refused is not None:
            raise refused
        return accepted

    async def discard(self, task_id: str) -> bool:
        """Drop a task that waits; False where it runs or is unknown."""
        return await self.abort(task_id)

    async def abort(
        self, task_id: str, *, result: bytes = b"", result_seconds: float | None = None
    ) -> bool:
        """Drop a task that waits and leave a result, as of a job that was aborted.

        Args:
            task_id: the task.
            result: arq's serialised result, empty for none.
            result_seconds: how long it is kept; None for ever.
        """
        return await self._end_waiting("discard", task_id, result, result_seconds)

    async def expire(
        self, task_id: str, *, result: bytes = b"", result_seconds: float | None = None
    ) -> bool:
        """Drop a task whose payload expired while it waited, and leave a result.

        Args:
            task_id: one of ``Admission.expired``.
            result: arq's serialised result, empty for none.
            result_seconds: how long it is kept; None for ever.

        Returns:
            Whether it was dropped; False where it is gone, or was submitted anew.
        """
        return await self._end_waiting("expire", task_id, result, result_seconds)

    async def fail_lost(
        self, task_id: str, *, result: bytes = b"", result_seconds: float | None = None
    ) -> bool:
        """Drop a task that was lost with a member too often, and leave a result.

        Args:
            task_id: one of ``Admission.lost``.
            result: arq's serialised result, empty for none.
            result_seconds: how long it is kept; None for ever.

        Returns:
            Whether it was dropped; False where it is gone, or was submitted anew.
        """
        return await self._end_waiting("fail_lost", task_id, result, result_seconds)

    async def _end_waiting(
        self, why: WhyEnded, task_id: str, result: bytes, result_seconds: float | None
    ) -> bool:
        return await self._session.ask(EndWaiting(why, task_id, result, result_seconds))

    async def view(self) -> QueueView:
        """Return the waiting groups; changes nothing.

        Raises:
            CoordinatorError: the server could not be used.
        """
        return (await self._reader.snapshot()).queue


def _check_task(task: SchedulableTask) -> None:
    check_type("an item of the queue", task, SchedulableTask)
    if not isinstance(task.payload, bytes):
        raise ConfigurationError(
            f"the payload of task {task.task_id!r} is of type {type(task.payload).__name__},"
            " expected bytes; serialise it."
        )
    if len(task.payload) > MAX_PAYLOAD_BYTES:
        raise TaskAdmissionError(
            "payload_too_large",
            f"the payload of task {task.task_id!r} has {len(task.payload)} bytes, the most is"
            f" {MAX_PAYLOAD_BYTES}; store it elsewhere and pass a reference.",
            TaskAdmissionDenied(item=task, reason=TaskDenialReason.POLICY_DENIAL),
        )


def _held_elsewhere(task: SchedulableTask, holder: str) -> TaskAdmissionError:
    return TaskAdmissionError(
        "id_of_another_pool",
        f"task id {task.task_id!r} is held by {holder}, expected one that is free: ids count for"
        " the whole server, as arq's keys are named by them alone; put the pool's name in front.",
        TaskAdmissionDenied(
            item=task,
            reason=TaskDenialReason.POLICY_DENIAL,
            diagnostics={"code": "id_of_another_pool", "holder": holder},
        ),
    )


def _check_distinct(tasks: list[SchedulableTask]) -> None:
    seen: set[str] = set()
    for task in tasks:
        if task.task_id in seen:
            raise TaskAdmissionError(
                "duplicate_id",
                f"task id {task.task_id!r} stands twice in one call, expected each once, as the"
                " second would be dropped silently; give each task an id of its own.",
                TaskAdmissionDenied(item=task, reason=TaskDenialReason.POLICY_DENIAL),
            )
        seen.add(task.task_id)
