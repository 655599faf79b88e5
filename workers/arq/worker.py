"""An arq worker that starts tasks only under leases (spec 04, *From submit to finish, with arq*).

arq keeps running the job: function look-up, hooks, timeout, abort, ``Retry``, results and cron.
What is replaced is its polling and start protocol, as the lease gives exclusivity, and the end of a
job, which is one script.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from datetime import datetime
from functools import partial
from signal import SIG_IGN, Signals, getsignal
from typing import TYPE_CHECKING, Any, Final

from arq.jobs import DeserializationError
from arq.worker import Worker, func
from redis.exceptions import RedisError

from forebay.contracts.errors import CoordinatorUnavailable, JobUnreadable
from forebay.contracts.outcomes import ReleaseResult, TaskCompleted, TaskDeferred, TaskOutcome
from forebay.contracts.settings import MemberSettings
from forebay.contracts.tasks import TaskAdmissionLease
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.runs.plan import CELL_FUNCTION
from forebay.coordinator.runs.tracker import CompletionTracker
from forebay.coordinator.supervision import Guard
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.puller import TaskPuller
from forebay.workers.arq.cell_jobs import (
    CELL_SECONDS,
    CELL_TRIES,
    CellJobs,
    lease_of_job,
    outcome_of_cells,
)
from forebay.workers.arq.contained_jobs import contained, run_to_end
from forebay.workers.arq.health import HealthKeys, HealthRecord
from forebay.workers.arq.job_ends import JobEnds
from forebay.workers.arq.job_openings import JobOpenings
from forebay.workers.arq.log import WorkerFacts, log_events, logged_as, logging_worker
from forebay.workers.arq.log import log as arq_log
from forebay.workers.arq.pool import ForebayArqRedis, Opening, cron_instants, opening_of_job
from forebay.workers.arq.pressure import RequestPressureHints
from forebay.workers.arq.serialization import SerializerName, serializer_of
from forebay.workers.arq.settings import (
    WORKING,
    address_of,
    check_settings,
    named_functions,
    pool_of,
)
from forebay.workers.arq.turns import Turns
from forebay.workers.arq.unstarted_jobs import UnstartedJobs
from forebay.workers.runs.cells import MakeCellMaker, NoCells

if TYPE_CHECKING:
    from forebay.workers.runs.allowlist import Allowlist  # with an extra

CANCEL_AGAIN_SECONDS: Final = 0.5
"""How long a cancelled job may clean up before it is cancelled again."""

UNREAD_SECONDS: Final = 30.0
"""After which a job that this worker could not begin may be admitted again."""

log = Logger("forebay.worker")


class ForebayWorker(Worker):
    """``arq.Worker`` on a Forebay pool; takes arq's own settings besides these.

    Args:
        coordinator: the process's connection to the server; closed by the worker.
        pool: name of the task pool, by default ``default``.
        functions: arq functions.
        serializer: of the pool's jobs and results.
        cells: makes what makes the cells of runs; without it the worker is given none.
        settings: arq's, such as ``max_jobs``, ``on_startup`` or ``cron_jobs``.

    Raises:
        ConfigurationError: a setting that a pool does not take, or that is wrong.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        pool: str | None = None,
        functions: Sequence[Any] = (),
        serializer: SerializerName = "json",
        cells: MakeCellMaker | None = None,
        **settings: Any,
    ) -> None:
        self.coordinator = coordinator
        chosen = serializer_of(serializer)
        check_settings(settings)
        self.pool_name = pool_of(pool, settings)
        named, crons = named_functions(functions, settings.get("cron_jobs"))
        self.tasks_admission = TaskAdmissionController(
            coordinator,
            self.pool_name,
            functions=[
                *(one.name for one in named),
                *((CELL_FUNCTION,) if cells else ()),
                *(cron.name for cron in crons),
            ],
            on_lease_lost=self._on_lease_lost,
        )
        self.request_admission = AdaptiveRequestAdmissionController(coordinator)
        tracker = CompletionTracker(self.tasks_admission, coordinator.client)
        maker = NoCells() if cells is None else cells(tracker, self.request_admission)
        self._cells = CellJobs(maker, chosen)
        self._guard = Guard(log, pool=self.pool_name)
        self._turns = Turns(coordinator, self.pool_name, self._guard)
        self._hints = RequestPressureHints(
            self.request_admission.pressure, self.request_admission.known
        )
        self._running: set[asyncio.Task[None]] = set()
        self._unwinding: dict[str, asyncio.Task[None]] = {}
        self._ending: set[str] = set()
        self._ends = JobEnds()
        self._puller: TaskPuller | None = None
        self._caller: asyncio.Task[Any] | None = None
        jobs = ForebayArqRedis(
            self.tasks_admission,
            coordinator.client.connection_pool,
            chosen,
            expires_extra_ms=settings.get("expires_extra_ms"),
        )
        self._openings = JobOpenings(jobs, self._cells)
        health = HealthKeys.of(self.pool_name, settings)
        cell = func(
            self._cells.make,
            name=CELL_FUNCTION,
            keep_result=0,
            timeout=CELL_SECONDS,
            max_tries=CELL_TRIES,
        )
        working = {name: value for name, value in settings.items() if name in WORKING}
        notes = (self._ends.note_begun, self._ends.note_cancelled)
        super().__init__(
            queue_name=jobs.default_queue_name,
            redis_pool=jobs,
            job_serializer=chosen.dump,
            job_deserializer=chosen.load,
            **working
            | {
                "functions": [contained(one, *notes) for one in [*named, cell]],
                "cron_jobs": [contained(cron, *notes) for cron in crons],
                "health_check_key": health.own,
            },
        )
        self._health = HealthRecord(health, self.health_check_interval)
        self._unstarted = UnstartedJobs(
            self.tasks_admission,
            jobs,
            chosen,
            keep_seconds=None if self.keep_result_forever else self.keep_result_s,
        )
        self._facts = WorkerFacts(
            pool=self.pool_name,
            server=str(coordinator.address),
            slots=self.max_jobs,
            health_check_key=self.health_check_key,
        )
        log_events()
        self.log_results = False  # none is logged, so none is made a text
        self.allow_pick_jobs = False  # arq's own polling: leases take its place
        self.ctx["forebay_worker"] = self
        self.ctx["forebay"] = self.request_admission

    @property
    def drained(self) -> Mapping[str, Sequence[str]]:
        """Ids of the tasks that ended since the stop began: ``finished`` and ``given_back``."""
        return self._ends.drained

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop: it takes no new tasks."""
        return self._ends.is_stopping

    # -- pulling

    def run(self) -> None:
        """Do as arq does; no job's own task ends the loop."""
        self.main_task = self.loop.create_task(self.main())
        try:
            with contextlib.suppress(asyncio.CancelledError):
                run_to_end(self.loop, self.main_task, goes_on=lambda: True)
        finally:
            closing = self.loop.create_task(self.close())
            run_to_end(self.loop, closing, goes_on=lambda: True)

    async def async_run(self) -> None:
        """Do as arq does."""
        self._caller = asyncio.current_task()
        await super().async_run()

    async def main(self) -> None:
        """Do as arq does, and log it without what jobs carry."""
        with logged_as(self._facts):
            await super().main()

    async def heart_beat(self) -> None:
        """Start pulling at the first beat, after ``on_startup``; look at aborts and hints."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # which Python 3.11 may have lost in a library's wait_for
        if self._puller is None:
            self._puller = TaskPuller(
                self.tasks_admission,
                free_slots=self._free_slots,
                start=self._start,
                expired=self._note_expired,
                lost=self._note_lost,
                in_progress_seconds=self.in_progress_timeout_s,
                under_pressure=lambda: self._hints.resources,
                takes_pushes=not self.burst,
            )
            self._puller.look()
        await self._turns.do("beats", super().heart_beat)
        if self.allow_abort_jobs:
            await self._turns.do("aborts of waiting jobs", self._discard_aborted)
        await self._turns.do("hints", self._hints.refresh)

    async def record_health(self) -> None:
        """Record as arq does, and for ``arq --check``; where that fails, again at the next beat."""
        recorded_at = self._last_health_check
        try:
            await super().record_health()
            if self._last_health_check != recorded_at:
                await self._health.note(self.pool)
        except (RedisError, OSError):
            self._last_health_check = recorded_at
            raise

    async def run_cron(self, n: datetime, delay: float, num_windows: int = 2) -> None:
        """Do as arq does, and let each job be known by its pool and its instant."""
        instants = {job.name: job.next_run or n for job in self.cron_jobs}
        token = cron_instants.set(instants)
        try:
            await super().run_cron(n, delay, num_windows)
        finally:
            cron_instants.reset(token)

    async def _poll_iteration(self) -> None:
        self._forget_cancelled()
        await super()._poll_iteration()

    def _forget_cancelled(self) -> None:
        """Forget tasks that were cancelled, which arq would raise in its loop and end."""
        for job_id, task in [*self.tasks.items()]:
            if task.done() and task.cancelled():
                del self.tasks[job_id]

    async def _discard_aborted(self) -> None:
        """Drop jobs that are to be aborted before their start; arq counts each as failed."""
        for job_id in await self._unstarted.discard_aborted(self._runs_here):
            self.jobs_failed += 1
            arq_log.info("job_aborted", job_id=job_id, was_started=False)

    async def _cancel_aborted_jobs(self) -> None:
        """Do as arq does, which looks before each beat."""
        await self._turns.do("aborts", self._cancel_aborted)
        self._forget_cancelled()

    async def _cancel_aborted(self) -> None:
        with contextlib.suppress(UnicodeDecodeError):  # of ids that are no text the beat disposes
            await super()._cancel_aborted_jobs()

    def _free_slots(self) -> int:
        """How many more may start: a job whose end is on its way has left its slot."""
        if self.is_stopping:
            return 0
        free = self.max_jobs - len(self._running) + len(self._ending)
        if self.burst and self.max_burst_jobs >= 0:
            started = self.jobs_complete + self.jobs_failed + self.jobs_retried + len(self._running)
            free = min(free, self.max_burst_jobs - started)
        return free

    def _runs_here(self, job_id: str) -> bool:
        return job_id in self.job_tasks or job_id in self.tasks

    def _start(self, lease: TaskAdmissionLease) -> None:
        """Start a job's task; one that cannot be started is put back, and ends nothing else."""
        if not self._guard.call(self._start_task, lease):
            self.tasks_admission.finish(lease, TaskDeferred(delay_seconds=UNREAD_SECONDS))

    def _start_task(self, lease: TaskAdmissionLease) -> None:
        context = copy_context()
        context.run(lease_of_job.set, lease)
        context.run(logging_worker.set, self._facts)
        task = self.loop.create_task(self._run(lease), context=context)
        self.tasks[lease.item.task_id] = task
        self._running.add(task)
        task.add_done_callback(lambda task: self._leave_slot(task, lease))

    async def _run(self, lease: TaskAdmissionLease) -> None:
        """Let arq run the job; a server that is away is no fault of the job, nor of the worker."""
        item = lease.item
        has_begun = False
        try:
            await self._unwound(item.task_id)
            opening = await self._opening_of(lease)
            if opening is None:
                return
            opening_of_job.set(opening)
            has_begun = True
            await self._run_by_arq(item.task_id, item.available_ms)
        except (RedisError, OSError, CoordinatorUnavailable) as error:
            if has_begun and (isinstance(error, OSError) or await self._is_reachable()):
                raise  # of a hook, which ends the worker, as it does in arq
            await self._put_back(lease, error)
        except Exception as error:
            if has_begun:
                raise
            self._guard.note("beginning a job", error)
            if self.tasks_admission.is_held(lease):
                await self._end(lease, TaskDeferred(delay_seconds=UNREAD_SECONDS))
        except asyncio.CancelledError:  # arq lets it through where a hook was cancelled
            if self.tasks_admission.is_held(lease) or self.is_stopping:
                raise

    async def _run_by_arq(self, job_id: str, score: int) -> None:
        """Let arq run a job; what no loop outlives comes from a hook, as jobs are contained."""
        try:
            await self.run_job(job_id, score)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:
            raise RuntimeError(
                f"a hook of the worker raised {type(error).__qualname__}, expected an Exception; it"
                " ends the worker."
            ) from error

    async def _is_reachable(self) -> bool:
        """Whether the pool's own server answers: what a hook met is then none of its outage."""
        try:
            await self.pool.ping()
        except (RedisError, OSError):
            return False
        return True

    async def _put_back(self, lease: TaskAdmissionLease, error: Exception) -> None:
        """Let a job run again later, as its worker could not reach a server."""
        if self.tasks_admission.is_held(lease):
            log.warning("job_put_back", task_id=lease.item.task_id, error=type(error).__name__)
            await self._end(lease, TaskDeferred())
        else:
            log.warning("hook_failed", task_id=lease.item.task_id, error=type(error).__name__)

    async def _unwound(self, job_id: str) -> None:
        """Wait until the try of a job is over whose lease was lost: an id runs once at a time."""
        while (run := self._unwinding.get(job_id)) is not None:
            await asyncio.wait({run}, timeout=CANCEL_AGAIN_SECONDS)
            if job_id in self.job_tasks:
                self.job_tasks[job_id].cancel()

    async def _opening_of(self, lease: TaskAdmissionLease) -> Opening | None:
        """Return what arq asks for first; None where the lease is lost or the job unreadable."""
        try:
            opening = await self._openings.of(lease)
        except JobUnreadable as error:
            await self._fail_unreadable(lease, error)
            return None
        if not self.tasks_admission.is_held(lease):
            return None
        self.tasks_admission.say("worker_spawned", lease)
        return opening

    async def _fail_unreadable(self, lease: TaskAdmissionLease, error: JobUnreadable) -> None:
        """End a job that is none of this pool's as arq ends one that it cannot deserialize."""
        log.warning("job_unreadable", task_id=error.job_id, error=str(error))
        if not self.tasks_admission.is_held(lease):
            return
        self.jobs_failed += 1
        failure = DeserializationError(str(error))
        failure.__cause__ = error
        await self.finish_failed_job(
            error.job_id, self._unstarted.failure(error.job_id, failure, lease.item.job_try)
        )

    def _leave_slot(self, task: asyncio.Task[None], lease: TaskAdmissionLease) -> None:
        job_id = lease.item.task_id
        self._running.discard(task)
        self._ending.discard(lease.lease_id)
        self._ends.forget(lease)
        if task.cancelled():
            self._put_back_cancelled(lease)
        if self._unwinding.get(job_id) is task:
            del self._unwinding[job_id]
        is_kept = self.tasks.get(job_id) is task
        if is_kept and (task.cancelled() or task.exception() is None):
            del self.tasks[job_id]  # arq looks at those that failed, and raises
        if self._puller is not None:
            self._guard.call(self._puller.look)

    def _put_back_cancelled(self, lease: TaskAdmissionLease) -> None:
        """Put a job back that was cancelled before it ended, or in a hook."""
        if self.tasks_admission.is_held(lease):
            if not self.is_stopping:
                log.warning("job_put_back", task_id=lease.item.task_id, error="CancelledError")
            self._end(lease, self._ends.cut_off())

    def note_cut_off(self) -> None:
        """Take it that a job of this process cancelled the worker, for which its jobs are lost."""
        self._ends.was_cut_off = True

    def _note_expired(self, job_id: str) -> None:
        """Count a job whose payload expired in the queue as arq does: it has failed."""
        self.jobs_failed += 1
        arq_log.warning("job_expired", job_id=job_id)
        # arq keeps what is in `tasks`, and looks how it ended.
        self.tasks[f"{job_id} expired"] = self.loop.create_task(
            self._turns.do("beats", lambda: self._unstarted.leave_expired(job_id))
        )

    def _note_lost(self, job_id: str, members: Sequence[str]) -> None:
        """Fail a job that ended the process of each member that ran it."""
        self.jobs_failed += 1
        log.error("job_failed_worker_lost", task_id=job_id, members=list(members))
        self.tasks[f"{job_id} lost"] = self.loop.create_task(
            self._turns.do("beats", lambda: self._unstarted.fail_lost(job_id, members))
        )

    # -- the end of a job: one script

    async def finish_job(
        self,
        job_id: str,  # noqa: ARG002 - arq's signature; the lease says which job
        finish: bool,  # arq's signature
        result_data: bytes | None,
        result_timeout_s: float | None,
        keep_result_forever: bool,
        incr_score: int | None,
        keep_in_progress: float | None,
    ) -> None:
        """End the lease with its task; with a lost lease nothing is written."""
        lease = lease_of_job.get()
        made = self._cells.take(lease)
        deferral = self._cells.take_deferral(lease)
        if not self.tasks_admission.is_held(lease):
            return
        outcome: TaskOutcome
        if not finish:
            outcome = self._ends.put_off(lease, incr_score, deferral)
        else:
            outcome = TaskCompleted(
                result=result_data or b"",
                result_seconds=None if keep_result_forever else result_timeout_s,
                keep_in_progress_seconds=keep_in_progress,
            )
            if lease.item.cell is not None:
                outcome = outcome_of_cells(made, outcome)
        await self._end(lease, outcome)

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """End a job that could not be started: unknown function, too many tries, aborted."""
        keep_forever = self.keep_result_forever
        keeps = keep_forever or self.keep_result_s > 0
        await self.finish_job(
            job_id,
            finish=True,
            result_data=result_data if keeps else None,
            result_timeout_s=self.keep_result_s,
            keep_result_forever=keep_forever,
            incr_score=None,
            keep_in_progress=None,
        )

    def _end(
        self, lease: TaskAdmissionLease, outcome: TaskOutcome
    ) -> asyncio.Future[ReleaseResult]:
        """End a lease; unless a hook still follows, the ask for a successor travels with it."""
        self._ends.note(lease, outcome)
        ending = self.tasks_admission.finish(lease, outcome)
        if self.after_job_end is None:
            self._ending.add(lease.lease_id)
            if self._puller is not None:
                self._puller.look()
        return ending

    def _on_lease_lost(self, lease: TaskAdmissionLease) -> None:
        """Another member may run it now: stop here, in a hook too, and write nothing."""
        job_id = lease.item.task_id
        log.warning("task_lease_lost", task_id=job_id)
        run = self.tasks.pop(job_id, None)  # where arq would find it cancelled, and end the worker
        if run is not None and not run.done():
            self._unwinding.setdefault(job_id, run)
            self.job_tasks.get(job_id, run).cancel()

    # -- stopping

    def _add_signal_handler(self, signum: Signals, handler: Callable[[Signals], None]) -> None:
        """Handle SIGHUP as SIGTERM, unless the process was started to ignore it, as by `nohup`."""
        super()._add_signal_handler(signum, handler)
        if signum is Signals.SIGTERM and getsignal(Signals.SIGHUP) is not SIG_IGN:
            super()._add_signal_handler(Signals.SIGHUP, handler)

    def handle_sig(self, signum: Signals) -> None:
        """Give back what runs: an orderly stop costs a task no try."""
        self._stop_pulling()
        with logged_as(self._facts):
            super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        """Let what runs end within the grace time; take nothing new."""
        self._stop_pulling()
        with logged_as(self._facts):
            super().handle_sig_wait_for_completion(signum)

    def _stop_pulling(self) -> None:
        self._ends.is_stopping = True
        if self._puller is not None:
            self._puller.stop()

    async def close(self) -> None:
        """Give every lease back, leave the fleet, say what ended how, close the connections.

        Jobs that still run beside an error of a hook have the grace time to end, as on a signal.

        Raises:
            Exception: what ``on_shutdown`` raised.
        """
        is_told_to_stop, main = self.is_stopping, self.main_task
        is_caller_cancelled = self._caller is not None and self._caller.cancelling() > 0
        if (
            main is not None
            and main.cancelled()
            and not is_told_to_stop
            and not is_caller_cancelled
        ):
            self.note_cut_off()
        self._stop_pulling()
        if not self._handle_signals:
            self.handle_sig(Signals.SIGUSR1)
        elif self._running and not is_told_to_stop:
            _, late = await asyncio.wait(self._running, timeout=self._job_completion_wait)
            for task in late:
                task.cancel()
        await self._end_jobs()
        log.info("worker_drained", **self._ends.drained)
        try:
            await self._shut_down()
        finally:
            self._turns.forget()
            async with contextlib.AsyncExitStack() as stack:  # each, whatever befalls the others
                stack.push_async_callback(self.coordinator.close)
                stack.push_async_callback(self.tasks_admission.close)
                stack.push_async_callback(self.request_admission.close)
                stack.push_async_callback(self._cells.aclose)

    async def _shut_down(self) -> None:
        """Do what arq's own close does once no job runs, where the server is away as well."""
        if self._pool is None:
            return
        with contextlib.suppress(RedisError, OSError):
            await self._health.delete(self.pool)
        pool, self._pool = self._pool, None
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await pool.close(close_connection_pool=True)

    async def _end_jobs(self) -> None:
        """Wait until every job has ended and its lease is on its way back, and the worker's loop.

        arq's own close raises at the first job that was cancelled before it began. A cancellation
        can be lost in a library that a task is waiting in, so it is repeated.
        """
        caller = asyncio.current_task()
        main = [task for task in (self.main_task,) if task is not None and task is not caller]
        while going := [task for task in (*self._running, *main) if not task.done()]:
            for task in (*self.job_tasks.values(), *main):
                task.cancel()
            await asyncio.wait(going, timeout=CANCEL_AGAIN_SECONDS)
        self.tasks.clear()


async def open_worker(
    url: str | None = None,
    *,
    pool: str | None = None,
    member: MemberSettings | None = None,
    allowed: Allowlist | None = None,
    **settings: Any,
) -> ForebayWorker:
    """Connect and make a worker; ``await worker.async_run()`` runs it.

    Args:
        url: the server: ``redis://``, ``rediss://`` or ``unix://``; by default that of the setting
            ``redis_settings``.
        pool: the task pool, by default ``default``.
        member: how the process takes part in the fleet.
        allowed: the worker makes the cells of runs, which may use this and no other variable, file
            or host; without it, and without ``cells``, it makes none.
        settings: what ``ForebayWorker`` and ``arq.Worker`` take; of arq's settings class what
            `settings_of` returns.

    Raises:
        ConfigurationError, CoordinatorError: a setting is wrong, or the server cannot be used.
    """
    address = address_of(url, settings)
    if allowed is not None:
        settings = {"cells": _cells_within(allowed)} | settings
    coordinator = await Coordinator.open(address, member)
    try:
        return ForebayWorker(coordinator, pool=pool, **settings)
    except BaseException:
        await coordinator.close()
        raise


def _cells_within(allowed: Allowlist) -> MakeCellMaker:
    from forebay.workers.runs.run_cells import RunCells  # noqa: PLC0415 - an extra

    return partial(RunCells, environ=os.environ, allowed=allowed)
