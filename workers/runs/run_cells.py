"""Makes the cells of one task of a run in a worker (design 05, *Readiness*)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import RedisError

from forebay.contracts.errors import CoordinatorError, RunRefused
from forebay.contracts.events import RuntimeCorrelation, current_correlation
from forebay.contracts.identity import request_resource
from forebay.contracts.outcomes import TaskFailure
from forebay.contracts.run_use import ColumnUse
from forebay.contracts.runs import RunSpec
from forebay.contracts.tasks import RunCell
from forebay.contracts.workflow import PlannedColumn, TaskType
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.runs.tracker import CompletionTracker
from forebay.workers.executor import ModelRequestExecutor
from forebay.workers.generators.base import (
    BatchGenerator,
    RecordGenerator,
    RecordRejected,
    RowGroupGenerator,
)
from forebay.workers.runs.allowlist import Allowlist
from forebay.workers.runs.cell_failures import ModelCallFailed, may_be_mended, reason_of
from forebay.workers.runs.cell_use import CellUse, UseOfRuns, current_use
from forebay.workers.runs.cells import CellsDeferred, CellsDropped, CellsMade, CellsOutcome
from forebay.workers.runs.cooldowns import ImpatientLeases
from forebay.workers.runs.prepared_runs import PreparedRun, PreparedRuns

RETRY_BASE_SECONDS: Final = 0.5
RETRY_CAP_SECONDS: Final = 30.0
SERVER_AWAY_SECONDS: Final = 1.0
"""Delay of a cell whose server was away; counts no try."""
NO_ROOM_SECONDS: Final = 1.0
"""Delay of a cell that got no slot although its provider's window is open."""
REFUSED_SECONDS: Final = 1.0
"""Delay of a cell that this worker may not make, before another worker gets it."""

log = Logger("forebay.runs")


class RunCells:
    """Makes cells in one worker process; prepares each run once.

    Args:
        tracker: where inputs are read.
        requests: request admission, through which every model call goes.
        environ: keys and addresses of providers.
        allowed: what of the environment, the files and the network a run may use here.
    """

    def __init__(
        self,
        tracker: CompletionTracker,
        requests: AdaptiveRequestAdmissionController,
        environ: Mapping[str, str],
        allowed: Allowlist,
    ) -> None:
        self._tracker = tracker
        self._leases = ImpatientLeases(requests, requests.pressure)
        self._executor = ModelRequestExecutor(self._leases)
        self._runs = PreparedRuns(tracker, requests, self._executor, environ, allowed)
        self._use = UseOfRuns(tracker.report_use)
        self._refused: dict[str, str] = {}
        self._logged: set[tuple[str, int, str]] = set()

    async def make(self, cell: RunCell, job_try: int) -> CellsOutcome:
        """Make one task's cells and return the outcome; raises only a cancellation."""
        use, began = CellUse(), time.monotonic()
        token = current_use.set(use)
        try:
            outcome = await self._outcome(cell, job_try)
        finally:
            current_use.reset(token)
        self._use.add(
            cell,
            ColumnUse(
                retried=int(isinstance(outcome, CellsDeferred) and not outcome.gives_back_try),
                waited=int(isinstance(outcome, CellsDeferred) and outcome.gives_back_try),
                busy_seconds=time.monotonic() - began,
                models=use.models,
            ),
        )
        return outcome

    async def _outcome(self, cell: RunCell, job_try: int) -> CellsOutcome:
        try:
            if cell.run_id in self._refused:
                return await self._refuse(cell.run_id)
            run = await self._runs.get(cell.run_id)
            if run is None:
                return CellsDropped(failure=TaskFailure(reason="run_ended"))
            token = current_correlation.set(_correlation(run.spec, cell, current_correlation.get()))
            try:
                return await self._generate(run, cell)
            finally:
                current_correlation.reset(token)
        except RecordRejected as error:
            return CellsDropped(failure=TaskFailure(reason=error.reason))
        except RunRefused as error:
            return await self._refuse(cell.run_id, str(error))
        except Exception as error:  # noqa: BLE001 - a failing cell must never end the worker
            return await self._failed(cell, job_try, error)

    async def _refuse(self, run_id: str, reason: str | None = None) -> CellsOutcome:
        """Refuse a cell; if all workers refuse it, the run's driver gets the reason."""
        if reason is not None and run_id not in self._refused:
            log.error("run_refused", run_id=run_id, reason=reason)
            self._refused[run_id] = reason
        with contextlib.suppress(CoordinatorError, RedisError):  # said again with the next cell
            await self._tracker.refuse(run_id, self._refused[run_id])
        return CellsDeferred(delay_seconds=REFUSED_SECONDS, gives_back_try=True)

    async def aclose(self) -> None:
        """Wait for releases under way and close the provider clients."""
        await self._leases.aclose()
        await self._executor.aclose()
        await self._runs.aclose()

    async def _generate(self, run: PreparedRun, cell: RunCell) -> CellsOutcome:
        workflow = run.spec.workflow
        column = workflow.columns[cell.column_index - 1]
        generator = run.generators[cell.column_index - 1]
        if isinstance(generator, RowGroupGenerator):
            records = workflow.row_group(cell.number)
            rows = await generator.generate(records, run.context)
            return CellsMade(
                values={
                    records.start + place: _as_json(row, column.outputs)
                    for place, row in enumerate(rows)
                }
            )
        if column.task_type is TaskType.BATCH:
            return await self._generate_batch(run, cell, column, generator)
        inputs = await self._tracker.inputs(cell.run_id, cell.number, column.inputs)
        if inputs is None:
            return CellsDropped(failure=TaskFailure(reason="record_dropped"))
        row = await generator.generate(inputs, run.context)
        return CellsMade(values={cell.number: _as_json(row, column.outputs)})

    async def _generate_batch(
        self, run: PreparedRun, cell: RunCell, column: PlannedColumn, generator: RecordGenerator
    ) -> CellsOutcome:
        """Make a column of the records of a row group that were not dropped."""
        records = run.spec.workflow.row_group(cell.number)
        rows = await self._tracker.batch_inputs(cell.run_id, records, column.inputs)
        if not rows:
            return CellsDropped(failure=TaskFailure(reason="record_dropped"))
        inputs = list(rows.values())
        made: Sequence[Mapping[str, Any]]
        if isinstance(generator, BatchGenerator):
            made = await generator.generate_batch(inputs, run.context)
        else:  # wrapped by one that looks at each record
            made = [await generator.generate(row, run.context) for row in inputs]
        values = zip(rows, made, strict=True)
        return CellsMade(values={number: _as_json(row, column.outputs) for number, row in values})

    async def _failed(self, cell: RunCell, job_try: int, error: Exception) -> CellsOutcome:
        if isinstance(error, ModelCallFailed) and error.is_rate_limited:
            return await self._refused_by_provider(cell, error)
        if isinstance(error, CoordinatorError | RedisError):
            log.info("cell_put_back", run_id=cell.run_id, reason=type(error).__name__)
            return CellsDeferred(delay_seconds=SERVER_AWAY_SECONDS, gives_back_try=True)
        failure = TaskFailure(reason=reason_of(error))
        if isinstance(error, ModelCallFailed):
            model = str(error.resource.provider_model)
            failure = TaskFailure(reason=error.reason, model=model, status=error.status)
        reason = failure.reason
        kind = (cell.run_id, cell.column_index, reason)
        emit = log.info if kind in self._logged else log.warning  # once each: many cells
        self._logged.add(kind)
        emit(
            "cell_failed",
            run_id=cell.run_id,
            column_index=cell.column_index,
            number=cell.number,
            job_try=job_try,
            reason=reason,
        )
        if not may_be_mended(error):
            return CellsDropped(failure=_with_reason(failure, f"not_retryable: {reason}"))
        run = self._runs.known(cell.run_id)
        max_tries = run.spec.workflow.max_tries if run else 3
        if job_try >= max_tries:
            stated = f"tries_exhausted: {reason}, {job_try} tries"
            return CellsDropped(failure=_with_reason(failure, stated))
        delay = min(RETRY_CAP_SECONDS, RETRY_BASE_SECONDS * 2 ** (job_try - 1))
        return CellsDeferred(delay_seconds=delay, failure=_with_reason(failure, reason))

    async def _refused_by_provider(self, cell: RunCell, error: ModelCallFailed) -> CellsOutcome:
        """Defer a cell for which there was no room, at no cost of a try, until there may be."""
        seconds = await self._leases.cooldown_seconds(error.resource)
        log.info("cell_deferred", run_id=cell.run_id, reason=error.reason, cooldown_seconds=seconds)
        if seconds == 0:
            return CellsDeferred(delay_seconds=NO_ROOM_SECONDS, gives_back_try=True)
        return CellsDeferred(
            delay_seconds=seconds,
            gives_back_try=True,
            cooling=request_resource(error.resource.provider_model),
        )


def _with_reason(failure: TaskFailure, reason: str) -> TaskFailure:
    """Return a failure with a reason that is bounded, as it is stored and shown."""
    return replace(failure, reason=RecordRejected(reason).reason)


def _correlation(
    spec: RunSpec, cell: RunCell, of_task: RuntimeCorrelation | None
) -> RuntimeCorrelation:
    column = spec.workflow.columns[cell.column_index - 1]
    return RuntimeCorrelation(
        run_id=spec.run_id,
        row_group=cell.number // spec.workflow.buffer_size,
        task_column=column.outputs[0],
        task_type=column.task_type.value,
        task_execution_id=None if of_task is None else of_task.task_execution_id,
    )


def _as_json(row: Mapping[str, Any], outputs: tuple[str, ...]) -> dict[str, str]:
    return {
        name: json.dumps(row[name], ensure_ascii=False, separators=(",", ":")) for name in outputs
    }
