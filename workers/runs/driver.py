"""The driver of a run: submits it, writes finished row groups, puts the final file together.

The run itself needs no driver: members carry it on. A driver that dies is followed by another,
which goes on from the row groups that are on disk (design 05, *Drivers*).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redis.exceptions import RedisError

from forebay.contracts.errors import (
    ConfigurationError,
    CoordinatorUnavailable,
    ForebayError,
    RunLost,
    RunRefused,
    RunStopped,
)
from forebay.contracts.runs import RunProgress, RunSpec, RunStop
from forebay.contracts.tasks import TaskAdmissionError
from forebay.coordinator.logs import Logger
from forebay.coordinator.runs.scheduling import resolve_columns
from forebay.coordinator.runs.tracker import CompletionTracker
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.workers.generators.registry import build_generator
from forebay.workers.runs.cells import this_worker
from forebay.workers.runs.files import RunFiles
from forebay.workers.runs.troubles import TroubleWatch

RECHECK_SECONDS = 1.0

log = Logger("forebay.runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """The end of a run; ``written + dropped == records``.

    Attributes:
        records: asked for.
        written: in ``output``.
        dropped: in ``dropped_file``, each with its reason.
        output: the file with its records.
        dropped_file: JSON Lines, or None where nothing was dropped.
        reasons: why records were dropped, with how many; most frequent first.
        kept_output: the output that the workflow names, where it holds more records of an earlier
            run and was left as it is; None where ``output`` is that file.
    """

    records: int
    written: int
    dropped: int
    output: Path
    dropped_file: Path | None
    reasons: Mapping[str, int] = field(default_factory=dict)
    kept_output: Path | None = None


class RunDriver:
    """Drives one run.

    Args:
        connection: connection to the pool's server; left open.
        run: what to run.
        pool: name of the task pool.
        on_progress: told after each look, with the run's records.
        overwrites: whether an output of an earlier run may be replaced by fewer records.
        before_end: awaited before the last row group is said to be written, with which the server
            forgets the run.
    """

    def __init__(
        self,
        connection: ServerConnection,
        run: RunSpec,
        *,
        pool: str = "default",
        on_progress: Callable[[RunProgress], None] | None = None,
        overwrites: bool = False,
        before_end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._run = run
        self._before_end = before_end
        self._overwrites = overwrites
        self._state = connection.availability.state_of("driver", run_id=run.run_id)
        self._controller = TaskAdmissionController(connection, pool)
        self._changed = asyncio.Event()
        self._controller.watch(self._changed.set)
        self._tracker = CompletionTracker(self._controller, connection.client)
        ignored: Callable[[RunProgress], None] = lambda _progress: None  # noqa: E731
        self._on_progress = ignored if on_progress is None else on_progress
        self._files = RunFiles(Path(run.workflow.output.path), run.run_id)
        self._on_disk: set[int] = set()
        self._summary: RunSummary | None = None
        self._troubles = TroubleWatch(run.run_id)
        self._generation = ""

    async def drive(self) -> RunSummary:
        """Submit the run unless it is going on, and stay until its records are on disk.

        A cancelled driver leaves the run without a driver: members work its open row
        groups to their end, and another driver of the same run goes on from there.

        Raises:
            TaskAdmissionError: the pool refuses it; nothing was queued.
            RunRefused: no worker may make it; nothing of it was made, and it is over.
            RunStopped: too many cells of a column failed; what is finished is kept, and the run
                goes on where another driver submits it again.
            ConfigurationError: it cannot be driven from here: code or a folder is missing; a run
                that had begun before is left as it is.
            RunNotWritten: its files cannot be written; the run is left to another driver.
            RunLost: records are missing, as the server lost the run; nothing was deleted.
            CoordinatorError: the server could not be used; the run itself goes on.
        """
        await asyncio.to_thread(self._files.begin)
        try:
            return await self._drive()
        except (TaskAdmissionError, RunRefused):
            await asyncio.to_thread(self._files.discard_if_empty)
            await self._cancel_run()
            raise
        except (asyncio.CancelledError, ConfigurationError):
            self._files.discard_if_empty()
            raise
        finally:
            self._state.forget()
            await self._controller.close()

    async def _drive(self) -> RunSummary:
        if not await self._has_ended():
            await self._submit()
            await self._write_until_ended()
        summary = self._summary or await self._assemble()
        await asyncio.to_thread(self._files.discard)
        return summary

    async def _has_ended(self) -> bool:
        """Whether the server has ended the run and a driver died before it wrote the output."""
        self._on_disk = await asyncio.to_thread(self._files.row_groups)
        if len(self._on_disk) < self._run.workflow.row_group_count:
            return False
        return await self._tracker.spec(self._run.run_id) is None

    async def _submit(self) -> None:
        scheduling = resolve_columns(self._run, build_generator)
        if await self._tracker.submit(self._run, scheduling):
            self._on_disk = set()  # what lies there was made by a run that the server has lost
        await self._tracker.drive(self._run.run_id, this_worker())
        self._generation = self._generation_now()

    async def _cancel_run(self) -> None:
        """Cancel the run; log an error if the server is away."""
        try:
            await self._tracker.cancel(self._run.run_id)
        except ForebayError as error:
            log.warning(
                "run_not_cancelled",
                run_id=self._run.run_id,
                error=str(error),
                hint="members work its open row groups to their end, which then wait in the pool",
            )

    async def _write_until_ended(self) -> None:
        while True:
            self._changed.clear()
            try:
                if await self._write_what_is_ready():
                    return
            except (CoordinatorUnavailable, RedisError) as error:
                # The run goes on without its driver, and the driver waits for the server.
                self._state.lost(error)
                await asyncio.sleep(RECHECK_SECONDS)
                continue
            self._state.back()
            await self._changed.wait()

    async def _write_what_is_ready(self) -> bool:
        """Write every finished row group; return whether the run has ended."""
        run_id, workflow = self._run.run_id, self._run.workflow
        while True:
            progress = await self._tracker.collect(run_id)
            if progress is None:
                if len(self._on_disk) < workflow.row_group_count:
                    raise await self._lost(self._why_unknown())
                return True  # the reply that said so was lost
            self._on_progress(progress)
            self._troubles.look(progress.troubles)
            for row_group in progress.ready_to_write:
                records = await self._tracker.read_row_group(run_id, workflow, row_group)
                if records is None:
                    raise await self._lost(f"cells of row group {row_group} are not on the server")
                await asyncio.to_thread(self._files.write_row_group, row_group, records)
                self._on_disk.add(row_group)
                if len(self._on_disk) == workflow.row_group_count:
                    await self._complete_output()
                if await self._tracker.written(run_id, row_group) == "ended":
                    return True
            if not progress.ready_to_write:
                if progress.stop is not None and progress.stop.tasks_running == 0:
                    raise self._stopped(progress.stop)
                return False

    async def _complete_output(self) -> None:
        """Write the output before the server forgets the run: a driver may die at any time."""
        if self._before_end:
            await self._before_end()
        self._summary = await self._assemble()

    def _stopped(self, stop: RunStop) -> RunStopped:
        rate = self._run.workflow.max_error_rate
        return RunStopped(
            f"run {self._run.run_id!r} stopped itself: {stop.failed} of the last {stop.finished}"
            f" finished cells of column {stop.column!r} failed, the last one with: {stop.reason};"
            f" expected at most {rate:g} of them (max_error_rate). What is finished is kept; mend"
            " that and resume the run."
        )

    def _generation_now(self) -> str:
        membership = self._controller.session.membership
        return "" if membership is None else membership.generation

    def _why_unknown(self) -> str:
        if self._generation_now() == self._generation:
            return "it was cancelled elsewhere, or its keys were deleted"
        return "the server lost its state (FLUSHALL, or a restart without its data)"

    async def _lost(self, why: str) -> RunLost:
        written, dropped = await asyncio.to_thread(self._files.count)
        records = self._run.workflow.record_count
        return RunLost(
            f"run {self._run.run_id!r} did not end and cannot go on: {why}. {written} of {records}"
            f" records were finished and {dropped} dropped; they lie in {self._files.parts}."
            " Nothing was deleted; run the workflow again for all of them."
        )

    async def _assemble(self) -> RunSummary:
        written, dropped = await asyncio.to_thread(self._files.count)
        records = self._run.workflow.record_count
        if written + dropped != records:
            raise await self._lost("another driver of it wrote the other row groups elsewhere")
        reasons = await asyncio.to_thread(self._files.reasons)
        output, dropped_file = await asyncio.to_thread(
            self._files.assemble, overwrites=self._overwrites
        )
        return RunSummary(
            records=records,
            written=written,
            dropped=dropped,
            output=output,
            dropped_file=dropped_file if dropped else None,
            reasons=dict(reasons.most_common()),
            kept_output=None if output == self._files.output else self._files.output,
        )
