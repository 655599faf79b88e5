"""An arq worker that starts tasks only under leases (spec 04, *From submit to finish, with arq*).

arq keeps running the job: function look-up, hooks, timeout, abort, ``Retry``, results and cron.
What is replaced is its polling and start protocol, as the lease gives exclusivity, and the end of a
job, which is one script.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from contextvars import ContextVar, copy_context
from signal import Signals
from typing import Any, Final

from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms
from arq.worker import Retry, Worker, func
from redis.exceptions import RedisError

from contracts.errors import CoordinatorUnavailable
from contracts.identity import SUBMISSION
from contracts.settings import MemberSettings
from contracts.tasks import TaskAdmissionLease
from coordinator.coordinator import Coordinator
from coordinator.logs import Logger
from coordinator.requests.controller import AdaptiveRequestAdmissionController
from coordinator.runs.tracker import CompletionTracker
from coordinator.tasks.controller import TaskAdmissionController
from workers.arq_redis import ForebayArqRedis
from workers.run_cells import CellsDeferred, CellsDropped, CellsMade, RunCells
from workers.serialization import dump_job, load_job

CELL_FUNCTION: Final = "forebay_cell"
CELL_TRIES: Final = 1_000_000
"""arq's own bound of tries does not count for cells: a run decides with its ``max_tries``."""

SUBMISSION_CAPACITY: Final = 10_000
"""Tasks that may run at once in a pool where nobody claims less; slots of workers bound it."""

_lease_of_job: ContextVar[TaskAdmissionLease] = ContextVar("forebay_lease_of_job")
"""The admission under which a job runs: its id may be admitted again while it still unwinds."""

CANCEL_AGAIN_SECONDS: Final = 0.5
"""How long a cancelled job may clean up before it is cancelled again."""

log = Logger("forebay.worker")


async def forebay_cell(ctx: dict[str, Any], *_place: Any) -> None:
    """Make the cells of one task of a run: the arq function behind every such task."""
    worker: ForebayWorker = ctx["forebay_worker"]
    await worker.make_cells(ctx["job_try"])


class ForebayWorker(Worker):
    """``arq.Worker`` on a Forebay pool; takes arq's own settings besides these.

    Args:
        coordinator: the process's connection to the server; closed by the worker.
        pool: name of the task pool.
        functions: arq functions, besides the one that makes cells of runs.
        environ: keys and addresses of providers.
        settings: arq's, such as ``max_jobs``, ``on_startup`` or ``cron_jobs``.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        pool: str = "default",
        functions: tuple[Any, ...] = (),
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.coordinator = coordinator
        self.tasks_admission = TaskAdmissionController(
            coordinator, pool, on_lease_lost=self._on_lease_lost
        )
        self.request_admission = AdaptiveRequestAdmissionController(coordinator)
        tracker = CompletionTracker(self.tasks_admission, coordinator.client)
        self._cells = RunCells(
            tracker, self.request_admission, os.environ if environ is None else environ
        )
        self._cells_made: dict[str, CellsMade | CellsDropped] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._puller: asyncio.Task[None] | None = None
        self._stopping = False
        cell = func(forebay_cell, name=CELL_FUNCTION, keep_result=0, max_tries=CELL_TRIES)
        super().__init__(
            functions=(*functions, cell),
            queue_name=self.tasks_admission.keys["queue"],
            redis_pool=ForebayArqRedis(self.tasks_admission, coordinator.client.connection_pool),
            job_serializer=dump_job,
            job_deserializer=load_job,
            **settings,
        )
        self.allow_pick_jobs = False  # arq's own polling: leases take its place
        self.ctx["forebay_worker"] = self
        self.ctx["forebay"] = self.request_admission

    # -- pulling

    async def heart_beat(self) -> None:
        """Start pulling at the first beat, after ``on_startup``; raise what ended the puller."""
        if self._puller is None:
            self._puller = self.loop.create_task(self._pull(), name="forebay-puller")
        elif self._puller.done() and not self._stopping:
            self._puller.result()
        with contextlib.suppress(RedisError, OSError):  # the next beat comes soon
            await super().heart_beat()

    async def _pull(self) -> None:
        """Ask for as many tasks as there are free slots; sleep until there may be more."""
        await self.tasks_admission.set_limit(SUBMISSION, SUBMISSION_CAPACITY, holder="workers")
        while True:
            await self.tasks_admission.changed.wait()
            slots = self.max_jobs - len(self._running)
            if slots <= 0:
                self.tasks_admission.changed.clear()  # a slot that gets free sets it
                continue
            try:
                admission = await self.tasks_admission.admit(
                    slots, in_progress_seconds=self.in_progress_timeout_s
                )
            except CoordinatorUnavailable:
                self.tasks_admission.changed.set()  # it took its deadline to fail: ask again
                continue
            await self._take(admission.leases)

    async def _take(self, leases: tuple[TaskAdmissionLease, ...]) -> None:
        try:
            await self._write_cell_jobs(leases)
        except (RedisError, OSError):
            for lease in leases:
                self.tasks_admission.retry(lease)
            return
        for lease in leases:
            if self.tasks_admission.is_held(lease):
                self._start(lease)

    async def _write_cell_jobs(self, leases: tuple[TaskAdmissionLease, ...]) -> None:
        """Tasks of a run carry a reference: their arq job is written by who was given them."""
        cells = [lease for lease in leases if lease.cell is not None]
        if not cells:
            return
        async with self.pool.pipeline(transaction=False) as pipe:
            for lease in cells:
                job = serialize_job(
                    CELL_FUNCTION, (lease.task_id,), {}, None, lease.score, serializer=dump_job
                )
                pipe.set(job_key_prefix + lease.task_id, job)
            await pipe.execute()

    def _start(self, lease: TaskAdmissionLease) -> None:
        context = copy_context()
        context.run(_lease_of_job.set, lease)
        task = self.loop.create_task(self._run(lease), context=context)
        self.tasks[lease.task_id] = task
        self._running.add(task)
        task.add_done_callback(self._slot_is_free)

    async def _run(self, lease: TaskAdmissionLease) -> None:
        """Let arq run the job; a server that is away is no fault of the job, nor of the worker."""
        try:
            await self.run_job(lease.task_id, lease.score)
        except (RedisError, OSError) as error:
            log.warning("job_put_back", task_id=lease.task_id, error=type(error).__name__)
            if self.tasks_admission.is_held(lease):
                await self.tasks_admission.retry(lease)

    def _slot_is_free(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.tasks_admission.changed.set()

    # -- cells of runs

    async def make_cells(self, job_try: int) -> None:
        """Make one task's cells; what came of it is written when arq ends the job."""
        lease = _lease_of_job.get()
        if lease.cell is None:
            return
        outcome = await self._cells.make(lease.cell, job_try)
        if isinstance(outcome, CellsDeferred):
            raise Retry(defer=outcome.delay_seconds)
        self._cells_made[lease.lease_id] = outcome

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
        lease = _lease_of_job.get()
        made = self._cells_made.pop(lease.lease_id, None)
        if not self.tasks_admission.is_held(lease):
            return
        if not finish:
            delay_ms = lease.score + incr_score - timestamp_ms() if incr_score else 0
            await self.tasks_admission.retry(
                lease, delay_seconds=delay_ms / 1000, give_back_try=self._stopping
            )
        elif lease.cell is not None and not isinstance(made, CellsMade):
            reason = made.reason if isinstance(made, CellsDropped) else "task_failed"
            await self.tasks_admission.drop(lease, reason)
        else:
            await self.tasks_admission.finish(
                lease,
                result=result_data or b"",
                result_seconds=None if keep_result_forever else result_timeout_s,
                keep_in_progress_seconds=keep_in_progress,
                cells=made.values if isinstance(made, CellsMade) else None,
            )

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """End a job that could not be started: expired, unknown function, too many tries."""
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

    def _on_lease_lost(self, lease: TaskAdmissionLease) -> None:
        """Another member may run it now: stop here, and write nothing."""
        job = self.job_tasks.get(lease.task_id)
        if job is not None:
            job.cancel()
        log.warning("task_lease_lost", task_id=lease.task_id)

    # -- stopping

    def handle_sig(self, signum: Signals) -> None:
        """Give back what runs: an orderly stop costs a task no try."""
        self._stop_pulling()
        super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        """Let what runs end within the grace time; take nothing new."""
        self._stop_pulling()
        super().handle_sig_wait_for_completion(signum)

    def _stop_pulling(self) -> None:
        self._stopping = True
        if self._puller is not None:
            self._puller.cancel()

    async def close(self) -> None:
        """Give every lease back, leave the fleet, and close the connections."""
        self._stop_pulling()
        if not self._handle_signals:
            self.handle_sig(Signals.SIGUSR1)
        await self._end_jobs()
        try:
            with contextlib.suppress(asyncio.CancelledError, RedisError, OSError):
                await super().close()
        finally:
            await self._cells.aclose()
            await self.request_admission.close()
            await self.tasks_admission.close()
            await self.coordinator.close()

    async def _end_jobs(self) -> None:
        """Wait until every job has ended and its lease is on its way back.

        arq's own close raises at the first job that was cancelled before it began. A cancellation
        can be lost in a library that the job is waiting in, so it is repeated.
        """
        while self._running:
            for job in list(self.job_tasks.values()):
                job.cancel()
            await asyncio.wait(self._running, timeout=CANCEL_AGAIN_SECONDS)
        self.tasks.clear()


async def open_worker(
    url: str,
    *,
    pool: str = "default",
    settings: MemberSettings | None = None,
    **arq_settings: Any,
) -> ForebayWorker:
    """Connect and make a worker.

    Args:
        url: the server.
        pool: the task pool.
        settings: how the process takes part in the fleet.
        arq_settings: what ``ForebayWorker`` and ``arq.Worker`` take.

    Raises:
        ConfigurationError, CoordinatorError: the server cannot be used.
    """
    coordinator = await Coordinator.open(url, settings)
    return ForebayWorker(coordinator, pool=pool, **arq_settings)
