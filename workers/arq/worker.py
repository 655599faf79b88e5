"""An arq worker that starts tasks only under leases (design 04, *From submit to finish*).

arq runs the job; replaced are its polling and start, and a job's end, which is one script.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from signal import Signals
from typing import Any

from redis.exceptions import RedisError

from forebay.contracts.outcomes import TaskCompleted, TaskOutcome
from forebay.coordinator.event_outlet import SILENT, EventOutlet
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.runs.plan import CELL_FUNCTION, function_of_key
from forebay.coordinator.runs.tracker import CompletionTracker
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.supervision import Guard
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.workers.arq.cell_jobs import CellJobs, lease_of_job, outcome_of_cells
from forebay.workers.arq.contained_jobs import contained
from forebay.workers.arq.contained_worker import ContainedWorker
from forebay.workers.arq.health import HealthKeys, HealthRecord
from forebay.workers.arq.job_ends import JobEnds
from forebay.workers.arq.log import WorkerFacts, log_events, logged_as
from forebay.workers.arq.pool_redis import ForebayArqRedis, cron_instants
from forebay.workers.arq.pressure import RequestPressureHints
from forebay.workers.arq.scheduler import AsyncTaskScheduler
from forebay.workers.arq.serialization import SerializerName, serializer_of
from forebay.workers.arq.settings import WORKING, check_settings, named_functions, pool_of
from forebay.workers.arq.turns import Turns
from forebay.workers.arq.unstarted_jobs import UnstartedJobs
from forebay.workers.runs.cells import MakeCellMaker, NoCells

log = Logger("forebay.worker")


class ForebayWorker(ContainedWorker):
    """``arq.Worker`` on a Forebay pool; takes arq's own settings besides these.

    Args:
        connection: the process's connection to the server; closed by the worker.
        pool: name of the task pool, by default ``default``.
        functions: arq functions.
        serializer: of the pool's jobs and results.
        cells: makes what makes the cells of runs; without it the worker is given none.
        keys: variables with providers' keys, which the worker says it has by their names alone.
        events: takes the events of tasks and of the calls that they make.
        settings: arq's, such as ``max_jobs``, ``on_startup`` or ``cron_jobs``.

    Raises:
        ConfigurationError: a setting that a pool does not take, or that is wrong.
    """

    def __init__(
        self,
        connection: ServerConnection,
        *,
        pool: str | None = None,
        functions: Sequence[Any] = (),
        serializer: SerializerName = "json",
        cells: MakeCellMaker | None = None,
        keys: Sequence[str] = (),
        events: EventOutlet = SILENT,
        **settings: Any,
    ) -> None:
        self.connection = connection
        chosen = serializer_of(serializer)
        check_settings(settings)
        self.pool_name = pool_of(pool, settings)
        named, crons = named_functions(functions, settings.get("cron_jobs"))
        self.tasks_admission = TaskAdmissionController(
            connection,
            self.pool_name,
            functions=[
                *(one.name for one in named),
                *((CELL_FUNCTION, *map(function_of_key, keys)) if cells else ()),
                *(cron.name for cron in crons),
            ],
            on_lease_lost=lambda lease: self.scheduler.stop(lease),  # noqa: PLW0108 - made below
            events=events,
        )
        requests = AdaptiveRequestAdmissionController(connection, events=events)
        self.request_admission = requests
        tracker = CompletionTracker(self.tasks_admission, connection.client)
        maker = NoCells() if cells is None else cells(tracker, requests)
        self._cells = CellJobs(maker, chosen)
        self._guard = Guard(log, pool=self.pool_name)
        self._turns = Turns(connection, self.pool_name, self._guard)
        self._hints = RequestPressureHints(requests.pressure, requests.known)
        self._ends = JobEnds()
        jobs = ForebayArqRedis(
            self.tasks_admission,
            connection,
            chosen,
            expires_extra_ms=settings.get("expires_extra_ms"),
        )
        health = HealthKeys.of(self.pool_name, settings)
        working = {name: value for name, value in settings.items() if name in WORKING}
        notes = (self._ends.note_begun, self._ends.note_cancelled)
        super().__init__(
            queue_name=jobs.default_queue_name,
            redis_pool=jobs,
            job_serializer=chosen.dump,
            job_deserializer=chosen.load,
            **working
            | {
                "functions": [contained(one, *notes) for one in [*named, self._cells.function]],
                "cron_jobs": [contained(cron, *notes) for cron in crons],
                "health_check_key": health.own,
            },
        )
        self._health = HealthRecord(health, self.health_check_interval)
        self._unstarted = UnstartedJobs(self, self.tasks_admission, jobs, chosen, self._turns)
        self._facts = WorkerFacts(
            pool=self.pool_name,
            server=str(connection.address),
            slots=self.max_jobs,
            health_check_key=self.health_check_key,
        )
        self.scheduler = AsyncTaskScheduler(
            self,
            self.tasks_admission,
            jobs,
            self._cells,
            self._unstarted,
            self._ends,
            self._guard,
            self._facts,
            under_pressure=lambda: self._hints.resources,
        )
        log_events()
        self.log_results = False  # none is logged, so none is made a text
        self.allow_pick_jobs = False  # arq's own polling: leases take its place
        self.ctx |= {"forebay_worker": self, "forebay": self.request_admission}

    @property
    def drained(self) -> Mapping[str, Sequence[str]]:
        """Ids of the tasks that ended since the stop began: ``finished`` and ``given_back``."""
        return self._ends.drained

    @property
    def is_stopping(self) -> bool:
        """Whether the worker is stopping and takes no new tasks."""
        return self._ends.is_stopping

    async def main(self) -> None:
        """Run arq's main loop, and log it without jobs' payloads."""
        with logged_as(self._facts):
            await super().main()

    async def heart_beat(self) -> None:
        """Start pulling at the first beat, after ``on_startup``; look at aborts and hints."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # which Python 3.11 may have lost in a library's wait_for
        self.scheduler.begin()
        await self._turns.do_unless_pausing("beats", super().heart_beat)
        if self.allow_abort_jobs:
            await self._turns.do_unless_pausing(
                "aborts of waiting jobs",
                lambda: self._unstarted.discard_aborted(self.scheduler.has),
            )
        await self._turns.do_unless_pausing("hints", self._hints.refresh)

    async def record_health(self) -> None:
        """Record health as arq does, also for ``arq --check``; retried at the next beat."""
        recorded_at = self._last_health_check
        try:
            await super().record_health()
            if self._last_health_check != recorded_at:
                self.tasks_admission.events.health(self, len(self.scheduler.running))
                await self._health.note(self.pool)
        except (RedisError, OSError):
            self._last_health_check = recorded_at
            raise

    async def run_cron(self, n: datetime, delay: float, num_windows: int = 2) -> None:
        """Enqueue cron jobs as arq does, with ids of pool and instant."""
        instants = {job.name: job.next_run or n for job in self.cron_jobs}
        token = cron_instants.set(instants)
        try:
            await super().run_cron(n, delay, num_windows)
        finally:
            cron_instants.reset(token)

    async def _cancel_aborted_jobs(self) -> None:
        """Cancel aborted jobs, which arq reads before each beat."""
        await self._turns.do_unless_pausing("aborts", super()._cancel_aborted_jobs)
        self.forget_cancelled()

    def note_cut_off(self) -> None:
        """Note that a job cancelled the worker, so its jobs count as lost."""
        self._ends.was_cut_off = True

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
        cells = self._cells.take(lease)
        if not self.tasks_admission.is_held(lease):
            return
        outcome: TaskOutcome
        if not finish:
            outcome = self._ends.put_off(lease, incr_score, cells)
        else:
            outcome = TaskCompleted(
                result=result_data or b"",
                result_seconds=None if keep_result_forever else result_timeout_s,
                keep_in_progress_seconds=keep_in_progress,
            )
            if lease.item.cell is not None:
                outcome = outcome_of_cells(cells, outcome)
        await self.scheduler.end(lease, outcome)

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

    def handle_sig(self, signum: Signals) -> None:
        """Return running tasks to the queue; an orderly stop costs a task no try."""
        self._stop_pulling()
        with logged_as(self._facts):
            super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        """Let running tasks end within the grace time; take no new ones."""
        self._stop_pulling()
        with logged_as(self._facts):
            super().handle_sig_wait_for_completion(signum)

    def _stop_pulling(self) -> None:
        self._ends.is_stopping = True
        self.scheduler.begin_no_more()

    async def close(self) -> None:
        """Release every lease, leave the fleet, log how tasks ended, close the connections.

        Jobs that still run beside an error of a hook have the grace time to end, as on a signal.

        Raises:
            Exception: what ``on_shutdown`` raised.
        """
        is_told_to_stop = self.is_stopping
        if self.was_main_cancelled and not is_told_to_stop:
            self.note_cut_off()
        self._stop_pulling()
        if not self._handle_signals:
            self.handle_sig(Signals.SIGUSR1)
        elif self.scheduler.running and not is_told_to_stop:
            _, late = await asyncio.wait(self.scheduler.running, timeout=self._job_completion_wait)
            for task in late:
                task.cancel()
        await self.scheduler.end_all()
        log.info("worker_drained", **self._ends.drained)
        try:
            await self._shut_down()
        finally:
            self._turns.forget()
            async with contextlib.AsyncExitStack() as stack:  # a failure of one stops no other
                stack.push_async_callback(self.connection.close)
                stack.push_async_callback(self.tasks_admission.close)
                stack.push_async_callback(self.request_admission.close)
                stack.push_async_callback(self._cells.aclose)

    async def _shut_down(self) -> None:
        """Close as arq does once no job runs, also while the server is away."""
        if self._pool is None:
            return
        with contextlib.suppress(RedisError, OSError):
            await self._health.delete(self.pool)
        pool, self._pool = self._pool, None
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await pool.close(close_connection_pool=True)
