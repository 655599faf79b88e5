"""``enqueue_job`` through the fair queue for programs, jobs and cron jobs (design 04)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from arq.connections import ArqRedis
from arq.jobs import Job, JobDef, JobResult, SerializationError, serialize_job
from arq.utils import timestamp_ms
from redis.exceptions import ResponseError

from forebay.contracts.checks import (
    MAX_SPAN_SECONDS,
    check_cap,
    check_instant,
    check_name,
    check_span,
    shown,
)
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import TaskGroupSpec
from forebay.contracts.tasks import SchedulableTask, SchedulerResourceRequest
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.names import terms_text
from forebay.workers.arq.bounds import Bounds
from forebay.workers.arq.enqueued_job import EnqueuedJob
from forebay.workers.arq.job import find_jobs_on_pools
from forebay.workers.arq.job_terms import group_of, request_of
from forebay.workers.arq.prefetched_job import PrefetchedJobPipeline, prefetched_job
from forebay.workers.arq.serialization import JSON, JobSerializer
from forebay.workers.arq.stored_jobs import JobPipeline, StoredJobs, read_queued, read_results

DEFAULT_GROUP: Final = "default"
TERMS_FIELD: Final = "fb"
"""The field of a job's payload, beside arq's own, by which a pool restores its lost record."""
find_jobs_on_pools()


cron_instants: ContextVar[Mapping[str, datetime] | None] = ContextVar("forebay_cron", default=None)
"""The instants of the cron jobs that arq enqueues now, by name."""


class ForebayArqRedis(ArqRedis):
    """``ArqRedis`` whose jobs wait in a pool's fair queue and are never unpickled.

    `job` returns arq's ``Job``, as does ``arq.jobs.Job(job_id, pool)``. What is read of a key of a
    job or result comes read and checked (`Decoded`).

    Args:
        controller: the pool.
        connection: over whose connections commands go, within the deadline of a call.
        serializer: of jobs and results.
        expires_extra_ms: as arq's, how long after its time a job expires that says no ``_expires``;
            None for never.

    Raises:
        ConfigurationError: ``expires_extra_ms`` is no whole number from 1 on.
    """

    is_forebay_pool: Final = True
    expires_extra_ms: int | None  # type: ignore[assignment]  # arq's jobs always expire

    def __init__(
        self,
        controller: TaskAdmissionController,
        connection: ServerConnection,
        serializer: JobSerializer = JSON,
        *,
        expires_extra_ms: int | None = None,
    ) -> None:
        if expires_extra_ms is not None:
            check_cap("expires_extra_ms", expires_extra_ms, round(MAX_SPAN_SECONDS * 1000))
        super().__init__(
            pool_or_conn=connection.client.connection_pool,
            job_serializer=serializer.dump,
            job_deserializer=serializer.load,
            default_queue_name=controller.keys["queue"],
        )
        self.expires_extra_ms = expires_extra_ms
        self._controller = controller
        self._serializer = serializer
        self.stored = StoredJobs(serializer)
        self._bounds = Bounds(connection.address, connection.settings)

    def job(self, job_id: str) -> Job:
        """Return arq's ``Job`` of this pool: status, result, info and abort.

        Args:
            job_id: as it was enqueued; its ``status()`` shows whether there is such a job.

        Returns:
            The job. Its ``result(timeout=..., poll_delay=...)`` raises `TaskFailed` where the job
            did, arq's ``ResultNotFound`` where there is none, and `JobUnreadable` where another
            program wrote it; ``info()`` and ``abort()`` read the job, so they raise that, too.

        Raises:
            ConfigurationError: no text, or above 512 bytes.
        """
        return Job(check_name("job id", job_id), self)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command; of a job or result the answer is read and checked.

        Raises:
            JobUnreadable: what was read of a job or result is not what this pool writes.
            PoolUnavailable: the server did not answer within the deadline of a call.
        """
        try:
            reply = await self._bounds.run(super().execute_command(*args, **options))  # type: ignore[no-untyped-call] # redis-py's
        except ResponseError as error:
            self.stored.refuse(args, error)
            raise
        return self.stored.answer(args, reply)

    async def close(self, close_connection_pool: bool | None = None) -> None:  # noqa: ARG002
        """Close, by the name that arq uses; leaves the connections to `ServerConnection`."""
        await self.aclose(close_connection_pool=False)

    def pipeline(self, *args: Any, **kwargs: Any) -> Any:
        """Return a pipeline; the first one of ``run_job`` has prefetched answers."""
        opening = prefetched_job.get()
        if opening is None:
            made = super().pipeline(*args, **kwargs)
            return JobPipeline(
                self.stored,
                self._bounds,
                made.connection_pool,
                made.response_callbacks,
                made.is_transaction,
                made.shard_hint,
            )
        prefetched_job.set(None)
        return PrefetchedJobPipeline(opening)

    async def queued_jobs(self, *, queue_name: str | None = None) -> list[JobDef]:
        """Return the pool's jobs that are not finished: waiting, deferred or running.

        In the order of their scores: the instant, in milliseconds, from which each may run. Cells
        of runs are left out, and jobs that expired while they waited; a warning names each whose
        payload another program wrote.

        Raises:
            ConfigurationError: another queue than the pool's.
        """
        self._check_queue(queue_name)
        return await read_queued(self, self.default_queue_name)

    async def all_job_results(self) -> list[JobResult]:
        """Return the results that the pool's jobs have left, by the time of their enqueueing.

        Those of other pools and of arq's own queues are left out; a warning names each that cannot
        be read. It looks through all keys of the
        server, a thousand at a time, so it is for tests and tools.
        """
        results = await read_results(self)
        return [result for result in results if result.queue_name == self.default_queue_name]

    def _check_queue(self, queue_name: str | None) -> None:
        if queue_name not in {None, self.default_queue_name}:
            raise ConfigurationError(
                f"queue {queue_name!r} is not this pool's ({self.default_queue_name}); use another"
                " pool through its own connection: forebay.create_pool(url, pool=...)."
            )

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
        _group: TaskGroupSpec | str = DEFAULT_GROUP,
        _weight: float = 1.0,
        _resources: SchedulerResourceRequest | Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> Job | None:
        """Submit a job; as arq's own, with a group and resources besides.

        Args:
            function: its name, as the workers know it.
            args: its arguments, as the serializer can hold them.
            kwargs: its arguments by name.
            _defer_until: instant before which it does not start, of this process's clock; without a
                time zone, of its local time.
            _defer_by: seconds, or a timedelta, before which it does not start, from this call on.
            _group: whose share of the pool it takes: a name, or a group of the resolver's.
            _weight: of a group that is named here.
            _resources: units it needs at once, besides the one ``submission`` that it takes unless
                that is named too.

        Returns:
            The job, or None where its id is queued, runs or has a result in this pool. Its
            ``result()`` raises `JobLost` where the server has lost it since.

        Raises:
            TaskAdmissionError: it was refused and nothing was queued, as where another pool or
                program holds the id (``id_of_another_pool``); see `FairTaskQueue.submit`.
            ConfigurationError: both kinds of defer, another queue, a wrong name or number, or
                arguments that the serializer cannot hold.
        """
        self._check_queue(_queue_name)
        if _defer_until and _defer_by:
            raise ConfigurationError("use either _defer_until or _defer_by, not both.")
        check_name("function", function)
        instant = (cron_instants.get() or {}).get(function)
        if instant is not None:
            # The pool's name: arq's keys are the whole server's. The instant, past ones as well:
            # the mark of an earlier run is none of it.
            _job_id = f"{self._controller.pool}:{_job_id}" if _job_id else None
            _defer_until = instant
        not_before = _instant(_defer_until, _defer_by)
        job_id = _job_id or uuid4().hex
        group, request = group_of(_group, _weight), request_of(_resources)
        terms = terms_text(group, request, function)
        is_new = await self._controller.queue.submit(
            SchedulableTask(
                task_id=job_id,
                payload=self._payload(terms, function, args, kwargs, _job_try),
                group=group,
                resource_request=request,
                function=function,
                first_try=1 if _job_try is None else _job_try,
                not_before=not_before,
                expires_seconds=_seconds(_expires) or self._expiry_of(not_before),
            )
        )
        if not is_new:
            return None
        membership = self._controller.session.membership
        generation = None if membership is None else membership.generation
        return EnqueuedJob(job_id, self, function, generation, self._read_generation)

    async def _read_generation(self) -> tuple[str | None, bytes | None]:
        """Return the pool's generation and the reason of its last rebuild, each None if unset."""
        generation, reason = await self.execute_command(
            "HMGET", self._controller.keys["meta"], "generation", "reason"
        )
        return generation and generation.decode(), reason

    def _expiry_of(self, not_before: float | None) -> float | None:
        """Return the default expiry of a job."""
        if self.expires_extra_ms is None:
            return None
        waits = 0.0 if not_before is None else max(0.0, not_before - time.time())
        return waits + self.expires_extra_ms / 1000

    def _payload(
        self,
        terms: str,
        function: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        job_try: int | None,
    ) -> bytes:
        def dump(job: dict[str, Any]) -> bytes:
            return self._serializer.dump({TERMS_FIELD: terms, **job})  # first, where it is found

        try:
            return serialize_job(function, args, kwargs, job_try, timestamp_ms(), serializer=dump)
        except SerializationError as error:
            raise ConfigurationError(
                f"the arguments of job {function!r} are no {self._serializer.name} values, expected"
                " texts, numbers, booleans, None, lists and dicts; convert them."
            ) from error


def _instant(defer_until: datetime | None, defer_by: float | timedelta | None) -> float | None:
    """Return the instant before which a job is not to start; None for now.

    A span counts from this call, so that time in which the server is away is no delay besides.

    Raises:
        ConfigurationError: no datetime, or no span of time.
    """
    if defer_until is not None:
        try:
            return check_instant("_defer_until", defer_until.timestamp())
        except (AttributeError, ValueError, OverflowError) as error:
            raise ConfigurationError(
                f"_defer_until is {shown(defer_until)}, expected a datetime of the years 1 to 9999;"
                " for a number of seconds say _defer_by."
            ) from error
    if not defer_by:
        return None
    return time.time() + check_span("_defer_by", _seconds(defer_by) or 0.0)


def _seconds(duration: float | timedelta | None) -> float | None:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration
