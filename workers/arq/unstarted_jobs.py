"""Jobs that ended before they ran: aborted, expired or lost.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from arq.constants import abort_jobs_ss, job_key_prefix
from arq.jobs import SerializationError, deserialize_job_raw, serialize_result
from arq.utils import timestamp_ms
from arq.worker import JobExecutionFailed, Worker

from forebay.contracts.checks import check_name, shown
from forebay.contracts.errors import (
    ConfigurationError,
    CoordinatorError,
    JobLost,
    JobUnreadable,
    WorkerLost,
)
from forebay.coordinator.logs import Logger
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.workers.arq.log import log as arq_log
from forebay.workers.arq.pool_redis import ForebayArqRedis
from forebay.workers.arq.serialization import JobSerializer
from forebay.workers.arq.turns import Turns

log = Logger("forebay.worker")


class UnstartedJobs:
    """Counts jobs that never ran as failed and writes their results, as arq does.

    Args:
        worker: arq's, which counts them and says how long results are kept.
        controller: the pool.
        redis: where arq's keys are.
        serializer: of jobs and results.
        turns: ends those that the queue tells of.
    """

    def __init__(
        self,
        worker: Worker,
        controller: TaskAdmissionController,
        redis: ForebayArqRedis,
        serializer: JobSerializer,
        turns: Turns,
    ) -> None:
        self._worker = worker
        self._turns = turns
        self._controller = controller
        self._redis = redis
        self._serializer = serializer

    @property
    def _keep_seconds(self) -> float | None:
        """Seconds for which results are kept; None for ever, 0 not at all."""
        return None if self._worker.keep_result_forever else self._worker.keep_result_s

    async def discard_aborted(self, runs_here: Callable[[str], bool]) -> None:
        """Drop waiting jobs with an abort request; arq cancels running ones.

        Args:
            runs_here: whether a job runs in this worker.

        Raises:
            CoordinatorError, RedisError: the server could not be used.
        """
        for found in await self._redis.zrange(abort_jobs_ss, 0, -1):
            try:
                job_id = check_name("job id", found.decode())
            except (UnicodeDecodeError, ConfigurationError):
                log.warning("abort_request_dropped", job_id=shown(found), reason="no job's id")
                await self._redis.zrem(abort_jobs_ss, found)
                continue
            if runs_here(job_id):
                continue
            payload = await self._payload_of(job_id)
            result = self._result_of(job_id, asyncio.CancelledError(), payload)
            if await self._controller.queue.abort(
                job_id, result=result, result_seconds=self._keep_seconds
            ):
                self._worker.jobs_failed += 1
                arq_log.info("job_aborted", job_id=job_id, was_started=False)

    def note_expired(self, job_id: str) -> None:
        """Count a job whose payload expired in the queue, and end it."""
        self._worker.jobs_failed += 1
        arq_log.warning("job_expired", job_id=job_id)
        self._end_soon(f"{job_id} expired", lambda: self._leave_expired(job_id))

    def note_lost(self, job_id: str, members: Sequence[str]) -> None:
        """Count a job that ended the process of each member that ran it, and end it."""
        self._worker.jobs_failed += 1
        log.error("job_failed_worker_lost", task_id=job_id, members=list(members))
        self._end_soon(f"{job_id} lost", lambda: self._fail_lost(job_id, members))

    def note_payload_lost(self, job_id: str, function: str) -> None:
        """End a job whose payload the server lost; called again until it is over."""
        name = f"{job_id} without payload"
        if name not in self._worker.tasks:
            self._end_soon(name, lambda: self._leave_lost(job_id, function))

    def _end_soon(self, name: str, end: Callable[[], Awaitable[None]]) -> None:
        # arq keeps what is in `tasks`, and looks how it ended.
        self._worker.tasks[name] = self._worker.loop.create_task(self._turns.do("beats", end))

    async def _leave_expired(self, job_id: str) -> None:
        """End a job whose payload expired in the queue; without a server it comes again later."""
        result = self._result_of(job_id, JobExecutionFailed("job expired"), None)
        with contextlib.suppress(CoordinatorError):
            await self._controller.queue.expire(
                job_id, result=result, result_seconds=self._keep_seconds
            )

    async def _leave_lost(self, job_id: str, function: str) -> None:
        """Write a lost job's result; the one worker that succeeds logs and counts the job."""
        result = self._result_of(job_id, JobLost(job_id, function), None)
        with contextlib.suppress(CoordinatorError):
            if await self._controller.queue.expire(
                job_id, result=result, result_seconds=self._keep_seconds
            ):
                self._worker.jobs_failed += 1
                log.error("job_lost", task_id=job_id, function=function)

    async def _payload_of(self, job_id: str) -> bytes | None:
        """Return a job's payload; None where it is gone, or none of this pool's."""
        try:
            payload: bytes | None = await self._redis.get(job_key_prefix + job_id)
        except JobUnreadable:
            return None
        return payload

    def failure(self, job_id: str, error: Exception, job_try: int) -> bytes:
        """Return the result of an unreadable job; empty where results are not kept."""
        return self._result_of(job_id, error, None, job_try)

    async def _fail_lost(self, job_id: str, members: Sequence[str]) -> None:
        """End a job whose process died with it too often; without a server it comes again later."""
        payload = await self._payload_of(job_id)
        result = self._result_of(job_id, WorkerLost(members), payload)
        with contextlib.suppress(CoordinatorError):
            await self._controller.queue.fail_lost(
                job_id, result=result, result_seconds=self._keep_seconds
            )

    def _result_of(
        self, job_id: str, error: BaseException, payload: bytes | None, job_try: int = 1
    ) -> bytes:
        if self._keep_seconds is not None and self._keep_seconds <= 0:
            return b""
        now_ms = timestamp_ms()
        function, args, kwargs, enqueued_ms = self._read(payload) or ("<unknown>", (), {}, now_ms)
        result = serialize_result(
            function=function,
            args=args,
            kwargs=kwargs,
            job_try=job_try,
            enqueue_time_ms=enqueued_ms,
            success=False,
            result=error,
            start_ms=now_ms,
            finished_ms=now_ms,
            ref=job_id,
            serializer=self._serializer.dump,
            queue_name=self._redis.default_queue_name,
            job_id=job_id,
        )
        return result or b""

    def _read(
        self, payload: bytes | None
    ) -> tuple[str, tuple[Any, ...], dict[str, Any], int] | None:
        """Return function, arguments and time of enqueueing of a job that can be read."""
        if payload is None:
            return None
        try:
            function, args, kwargs, _job_try, enqueued_ms = deserialize_job_raw(
                payload, deserializer=self._serializer.load
            )
        except SerializationError:
            return None
        return function, args, kwargs, enqueued_ms
