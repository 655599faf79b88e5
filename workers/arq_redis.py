"""``enqueue_job`` through the fair queue, for ``ctx["redis"]`` and arq's cron jobs (spec 04)."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from arq.connections import ArqRedis
from arq.jobs import Job, serialize_job
from arq.utils import timestamp_ms

from contracts.errors import ConfigurationError
from contracts.identity import TaskGroupKey, TaskGroupKind, TaskGroupSpec
from contracts.tasks import SchedulableTask, SchedulerResourceRequest
from coordinator.tasks.controller import TaskAdmissionController
from workers.serialization import dump_job, load_job

DEFAULT_GROUP: Final = TaskGroupSpec(
    key=TaskGroupKey(kind=TaskGroupKind.LOCAL, identity=("default",))
)


class ForebayArqRedis(ArqRedis):
    """``ArqRedis`` whose jobs wait in a pool's fair queue.

    Args:
        controller: the pool.
        connection_pool: where single commands go.
    """

    def __init__(self, controller: TaskAdmissionController, connection_pool: Any) -> None:
        super().__init__(
            pool_or_conn=connection_pool,
            job_serializer=dump_job,
            job_deserializer=load_job,
            default_queue_name=controller.keys["queue"],
        )
        self._controller = controller

    async def enqueue_job(
        self,
        function: str,
        *args: Any,
        _job_id: str | None = None,
        _queue_name: str | None = None,
        _defer_until: datetime | None = None,
        _defer_by: float | timedelta | None = None,
        _expires: float | timedelta | None = None,
        _job_try: int | None = None,
        _group: TaskGroupSpec = DEFAULT_GROUP,
        _resources: SchedulerResourceRequest | None = None,
        **kwargs: Any,
    ) -> Job | None:
        """Submit a job; as arq's own, with a group and resources besides.

        Returns:
            The job, or None where its id is queued, running or has a result.

        Raises:
            TaskAdmissionError: its resources are unknown or above their limits.
            ConfigurationError: both kinds of defer, another queue, or arguments that JSON cannot
                hold.
        """
        if _queue_name not in {None, self.default_queue_name}:
            raise ConfigurationError(
                f"queue {_queue_name!r} is not this pool's ({self.default_queue_name}); submit to"
                " another pool through its own controller."
            )
        if _defer_until and _defer_by:
            raise ConfigurationError("use either _defer_until or _defer_by, not both.")
        delay = _seconds(_defer_by) or 0.0
        if _defer_until is not None:
            delay = _defer_until.timestamp() - time.time()
        job_id = _job_id or uuid4().hex
        payload = serialize_job(
            function, args, kwargs, _job_try, timestamp_ms(), serializer=dump_job
        )
        is_new = await self._controller.submit(
            SchedulableTask(
                task_id=job_id,
                payload=payload,
                group=_group,
                resource_request=_resources or SchedulerResourceRequest(),
                delay_seconds=max(0.0, delay),
                expires_seconds=_seconds(_expires),
            )
        )
        if not is_new:
            return None
        return Job(job_id, self, _queue_name=self.default_queue_name, _deserializer=load_job)


def _seconds(duration: float | timedelta | None) -> float | None:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration
