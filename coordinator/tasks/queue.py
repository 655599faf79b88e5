"""``FairTaskQueue``: what goes into one pool's queue, and out of it unstarted (spec 02, 04)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from forebay.contracts.errors import ConfigurationError, TaskAdmissionError
from forebay.contracts.identity import check_type
from forebay.contracts.task_policies import QueueView
from forebay.contracts.tasks import SchedulableTask, TaskAdmissionDenied, TaskDenialReason
from forebay.coordinator.channel import ShardChannel
from forebay.coordinator.keys import check_id
from forebay.coordinator.tasks import codec
from forebay.coordinator.tasks.snapshots import PoolReader

MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024


class FairTaskQueue:
    """Membership and order of the ready tasks of one pool; which may go is not decided here.

    Args:
        channel: the pool's.
        reader: looks at the pool.
    """

    def __init__(self, channel: ShardChannel, reader: PoolReader) -> None:
        self._channel = channel
        self._reader = reader

    async def submit(self, task: SchedulableTask) -> bool:
        """Put a task into the queue, once.

        Returns:
            Whether it is new; False where its id is queued, running or has a result.

        Raises:
            TaskAdmissionError: it was refused and nothing was queued: a resource that is unknown or
                asked for above its limit, a payload that is too large, a pool that is draining.
            ConfigurationError: a wrong name.
            CoordinatorError: the shared state could not be used.
        """
        _check_task(task)
        result = await self._channel.ask(*codec.submit_args(task))
        return codec.check_accepted(result, f"task {task.task_id!r}", task)

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
        asked = [self._channel.ask(*codec.submit_args(task)) for task in tasks]
        # All of them: an error that nobody fetches would be logged by asyncio, one line each.
        answers = await asyncio.gather(*asked, return_exceptions=True)
        accepted, refused = [], None
        for task, answer in zip(tasks, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            try:
                codec.check_accepted(answer, f"task {task.task_id!r}", task)
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
        self, operation: str, task_id: str, result: bytes, result_seconds: float | None
    ) -> bool:
        kept = "" if result_seconds is None else codec.milliseconds(result_seconds)
        args = codec.operation(operation, check_id("task id", task_id), result, kept)
        return await self._channel.ask(*args) == ["discarded"]

    async def view(self) -> QueueView:
        """Look at what waits; changes nothing.

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
