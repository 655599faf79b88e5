"""``AsyncTaskScheduler``: the owner of the loop of one worker process.

Rules: design 01; design 04; design 05.

What of the loop is a decision over all processes is made by the pool's script, and this is who asks
for it: docs/architecture.md, *The loop of a worker*, has the figure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Final

from arq.constants import job_key_prefix
from arq.jobs import DeserializationError
from arq.worker import Worker
from redis.exceptions import RedisError

from forebay.contracts.errors import CoordinatorUnavailable, JobUnreadable
from forebay.contracts.event_kinds import SchedulerEventKind
from forebay.contracts.events import current_correlation
from forebay.contracts.identity import SchedulerResourceKey
from forebay.contracts.outcomes import ReleaseResult, TaskDeferred, TaskOutcome
from forebay.contracts.tasks import AdmittedTask, TaskAdmissionLease
from forebay.coordinator.logs import Logger
from forebay.coordinator.supervision import Guard
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.events import correlation_of
from forebay.coordinator.tasks.puller import TaskPuller
from forebay.workers.arq.cell_jobs import CellJobs, lease_of_job
from forebay.workers.arq.contained_jobs import run_by_arq
from forebay.workers.arq.job_ends import JobEnds
from forebay.workers.arq.log import WorkerFacts, logging_worker
from forebay.workers.arq.pool_redis import ForebayArqRedis
from forebay.workers.arq.prefetched_job import PrefetchedJob, prefetched_job
from forebay.workers.arq.unstarted_jobs import UnstartedJobs

CANCEL_AGAIN_SECONDS: Final = 0.5
"""Time for a cancelled job to clean up before it is cancelled again."""

UNREAD_SECONDS: Final = 30.0
"""Delay before a job that this worker could not begin is admitted again."""

log = Logger("forebay.worker")


class AsyncTaskScheduler:
    """Takes tasks for the free slots, lets arq run them, and sends their ends; one a worker.

    It admits (`TaskPuller`), runs (`start`), finishes (`end`), cancels (`stop`) and stops cleanly
    (`begin_no_more`, `end_all`); leases are renewed by the heartbeat of the membership, and
    salvage rounds, row groups and early stops are decided by the script that ends a task.

    Args:
        worker: arq's, which runs a job; its tables of tasks are kept as it reads them.
        admission: grants leases and takes them back.
        redis: where arq's keys are.
        cells: the jobs of tasks of runs, which have no payload of their own.
        unstarted: what jobs leave that cannot be started.
        ends: what a job counts that is put back.
        guard: logs what nobody expected.
        facts: of the worker, for the log.
        under_pressure: returns the resources whose providers take nothing now.

    Attributes:
        running: the jobs' tasks, until each has left its slot.
    """

    def __init__(
        self,
        worker: Worker,
        admission: TaskAdmissionController,
        redis: ForebayArqRedis,
        cells: CellJobs,
        unstarted: UnstartedJobs,
        ends: JobEnds,
        guard: Guard,
        facts: WorkerFacts,
        *,
        under_pressure: Callable[[], frozenset[SchedulerResourceKey]],
    ) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self._worker = worker
        self._admission = admission
        self._redis = redis
        self._cells = cells
        self._unstarted = unstarted
        self._ends = ends
        self._guard = guard
        self._facts = facts
        self._under_pressure = under_pressure
        self._puller: TaskPuller | None = None
        self._ending: set[str] = set()
        self._unwinding: dict[str, asyncio.Task[None]] = {}

    def begin(self) -> None:
        """Start taking jobs; a second call does nothing."""
        if self._puller is None:
            self._admission.watch_lost_jobs(self._unstarted.note_payload_lost)
            self._puller = TaskPuller(
                self._admission,
                free_slots=self.free_slots,
                start=self.start,
                expired=self._unstarted.note_expired,
                lost=self._unstarted.note_lost,
                in_progress_seconds=self._worker.in_progress_timeout_s,
                under_pressure=self._under_pressure,
                takes_pushes=not self._worker.burst,
            )
            self._emit(SchedulerEventKind.SCHEDULER_JOB_STARTED)
            self._puller.look()

    def begin_no_more(self) -> None:
        """Take no more jobs; running ones go on."""
        if self._puller is not None:
            self._puller.stop()

    def free_slots(self) -> int:
        """Return the number of free slots; a job whose end is being sent has left its slot."""
        if self._ends.is_stopping:
            return 0
        worker, running = self._worker, len(self.running)
        free = worker.max_jobs - running + len(self._ending)
        if worker.burst and worker.max_burst_jobs >= 0:
            ended = worker.jobs_complete + worker.jobs_failed + worker.jobs_retried
            free = min(free, worker.max_burst_jobs - ended - running)
        return free

    def has(self, job_id: str) -> bool:
        """Whether a job runs in this worker."""
        return job_id in self._worker.job_tasks or job_id in self._worker.tasks

    def start(self, lease: TaskAdmissionLease) -> None:
        """Start a job's task; one that cannot be started is put back, and ends nothing else."""
        if not self._guard.call(self._start_task, lease):
            self._admission.emit(SchedulerEventKind.WORKER_SPAWN_FAILED, lease)
            self._admission.finish(lease, TaskDeferred(delay_seconds=UNREAD_SECONDS))

    def end(self, lease: TaskAdmissionLease, outcome: TaskOutcome) -> asyncio.Future[ReleaseResult]:
        """End a lease; unless a hook still follows, the same call asks for the next job."""
        self._ends.note(lease, outcome)
        ending = self._admission.finish(lease, outcome)
        if self._worker.after_job_end is None:
            self._ending.add(lease.lease_id)
            self._look()
        return ending

    def stop(self, lease: TaskAdmissionLease) -> None:
        """Stop a job whose lease is lost, in a hook too, and write nothing.

        Another member may run it now.
        """
        job_id = lease.item.task_id
        log.warning("task_lease_lost", task_id=job_id)
        # where arq would find it cancelled, and end the worker
        run = self._worker.tasks.pop(job_id, None)
        if run is not None and not run.done():
            self._unwinding.setdefault(job_id, run)
            self._worker.job_tasks.get(job_id, run).cancel()

    async def end_all(self) -> None:
        """Wait until every job and the worker's loop have ended and all releases are sent.

        arq's own close raises at the first job that was cancelled before it began. A cancellation
        can be lost in a library that a task is waiting in, so it is repeated.
        """
        caller, loop = asyncio.current_task(), self._worker.main_task
        main = [task for task in (loop,) if task is not None and task is not caller]
        while going := [task for task in (*self.running, *main) if not task.done()]:
            for task in (*self._worker.job_tasks.values(), *main):
                task.cancel()
            await asyncio.wait(going, timeout=CANCEL_AGAIN_SECONDS)
        self._worker.tasks.clear()
        self._emit(SchedulerEventKind.SCHEDULER_JOB_COMPLETED)

    def _emit(self, kind: SchedulerEventKind) -> None:
        self._admission.events.scheduler(kind, slots=self._worker.max_jobs)

    def _look(self) -> None:
        """Ask for jobs where slots are free."""
        if self._puller is not None:
            self._puller.look()

    def _start_task(self, lease: TaskAdmissionLease) -> None:
        context = copy_context()
        context.run(lease_of_job.set, lease)
        context.run(current_correlation.set, correlation_of(lease))
        context.run(logging_worker.set, self._facts)
        task = self._worker.loop.create_task(self._run(lease), context=context)
        self._worker.tasks[lease.item.task_id] = task
        self.running.add(task)
        task.add_done_callback(lambda task: self._leave_slot(task, lease))

    async def _run(self, lease: TaskAdmissionLease) -> None:
        """Let arq run the job; return the job to the queue if the server is away."""
        item = lease.item
        has_begun = False
        try:
            await self._unwound(item.task_id)
            opening = await self._prefetch(lease)
            if opening is None:
                return
            prefetched_job.set(opening)
            has_begun = True
            await run_by_arq(self._worker, item.task_id, item.available_ms)
        except (RedisError, OSError, CoordinatorUnavailable) as error:
            if has_begun and (isinstance(error, OSError) or await self._is_reachable()):
                raise  # of a hook, which ends the worker, as it does in arq
            await self._put_back(lease, error)
        except Exception as error:
            if has_begun:
                raise
            self._guard.note("beginning a job", error)
            if self._admission.is_held(lease):
                await self.end(lease, TaskDeferred(delay_seconds=UNREAD_SECONDS))
        except asyncio.CancelledError:  # arq lets it through where a hook was cancelled
            if self._admission.is_held(lease) or self._ends.is_stopping:
                raise

    async def _is_reachable(self) -> bool:
        """Whether the pool's server answers, so that an error in a hook has another cause."""
        try:
            await self._worker.pool.time()
        except (RedisError, OSError):
            return False
        return True

    async def _put_back(self, lease: TaskAdmissionLease, error: Exception) -> None:
        """Let a job run again later, as its worker could not reach a server."""
        if self._admission.is_held(lease):
            log.warning("job_put_back", task_id=lease.item.task_id, error=type(error).__name__)
            await self.end(lease, TaskDeferred())
        else:
            log.warning("hook_failed", task_id=lease.item.task_id, error=type(error).__name__)

    async def _unwound(self, job_id: str) -> None:
        """Wait until an earlier try with a lost lease has ended: an id runs once at a time."""
        while (run := self._unwinding.get(job_id)) is not None:
            await asyncio.wait({run}, timeout=CANCEL_AGAIN_SECONDS)
            if job_id in self._worker.job_tasks:
                self._worker.job_tasks[job_id].cancel()

    async def _prefetch(self, lease: TaskAdmissionLease) -> PrefetchedJob | None:
        """Return the values that arq reads first; None for a lost lease or unreadable job."""
        try:
            payload = await self._payload_of(lease.item)
        except JobUnreadable as error:
            await self._fail_unreadable(lease, error)
            return None
        if not self._admission.is_held(lease):
            return None
        self._admission.emit(SchedulerEventKind.WORKER_SPAWNED, lease)
        item = lease.item
        return PrefetchedJob(payload=payload, job_try=item.job_try, is_aborted=item.is_aborted)

    async def _payload_of(self, item: AdmittedTask) -> bytes | None:
        """Return the job of a task, read and checked."""
        if item.cell is not None:
            return self._cells.payload(item)
        if item.payload is not None:
            return self._redis.stored.payload(item.task_id, item.payload)
        # the reply that brought it was lost, and its repeat tells of the lease alone
        payload: bytes | None = await self._redis.get(job_key_prefix + item.task_id)
        return payload

    async def _fail_unreadable(self, lease: TaskAdmissionLease, error: JobUnreadable) -> None:
        """End a job with an unreadable payload, as arq ends one that it cannot deserialize."""
        log.warning("job_unreadable", task_id=error.job_id, error=str(error))
        if not self._admission.is_held(lease):
            return
        self._worker.jobs_failed += 1
        failure = DeserializationError(str(error))
        failure.__cause__ = error
        await self._worker.finish_failed_job(
            error.job_id, self._unstarted.failure(error.job_id, failure, lease.item.job_try)
        )

    def _leave_slot(self, task: asyncio.Task[None], lease: TaskAdmissionLease) -> None:
        job_id = lease.item.task_id
        self.running.discard(task)
        self._ending.discard(lease.lease_id)
        self._ends.forget(lease)
        if task.cancelled():
            self._put_back_cancelled(lease)
        if self._unwinding.get(job_id) is task:
            del self._unwinding[job_id]
        is_kept = self._worker.tasks.get(job_id) is task
        if is_kept and (task.cancelled() or task.exception() is None):
            del self._worker.tasks[job_id]  # arq looks at those that failed, and raises
        self._guard.call(self._look)

    def _put_back_cancelled(self, lease: TaskAdmissionLease) -> None:
        """Put a job back that was cancelled before it ended, or in a hook."""
        if self._admission.is_held(lease):
            if not self._ends.is_stopping:
                log.warning("job_put_back", task_id=lease.item.task_id, error="CancelledError")
            self.end(lease, self._ends.cut_off())
