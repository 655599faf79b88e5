"""Making the cells of runs: what a worker does for one task of a run (spec 05)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import RedisError

from forebay.contracts.errors import (
    ConfigurationError,
    CoordinatorError,
    RunRefused,
    WorkflowError,
)
from forebay.contracts.events import RuntimeCorrelation, current_correlation
from forebay.contracts.identity import RequestGroupSpec, request_resource
from forebay.contracts.runs import RunSpec
from forebay.contracts.tasks import RunCell
from forebay.contracts.workflow import Workflow
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.coordinator.runs.tracker import CompletionTracker
from forebay.coordinator.supervision import outcome_of
from forebay.workers.evaluation.evaluator import EvaluatorUnavailable
from forebay.workers.executor import ModelRequestExecutor
from forebay.workers.generators.base import (
    GenerationContext,
    RecordGenerator,
    RecordRejected,
    RowGroupGenerator,
)
from forebay.workers.generators.registry import build_generator
from forebay.workers.runs.allowlist import Allowlist
from forebay.workers.runs.cell_failures import ModelCallFailed, reason_of
from forebay.workers.runs.cells import (
    CellsDeferred,
    CellsDropped,
    CellsMade,
    CellsOutcome,
    this_worker,
)
from forebay.workers.runs.cooldowns import ImpatientLeases
from forebay.workers.runs.models import ProviderClients, WorkflowModels, admission_config
from forebay.workers.runs.workflow_file import apply_addresses

RETRY_BASE_SECONDS: Final = 0.5
RETRY_CAP_SECONDS: Final = 30.0
SERVER_AWAY_SECONDS: Final = 1.0
"""After which a cell is made again that met a server which could not be used: that is no try."""
NO_ROOM_SECONDS: Final = 1.0
"""After which a cell is made again that found no room though its provider's window is open."""
REFUSED_SECONDS: Final = 1.0
"""After which a cell that this worker may not make can be admitted again, by another one."""

log = Logger("forebay.runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreparedRun:
    spec: RunSpec
    generators: tuple[RecordGenerator | RowGroupGenerator, ...]
    context: GenerationContext


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
        self._requests = requests
        self._environ = environ
        self._allowed = allowed
        self._name = this_worker()
        self._leases = ImpatientLeases(requests, requests.pressure)
        self._executor = ModelRequestExecutor(self._leases)
        self._clients = ProviderClients()
        self._resolver = RequestResourceResolver()
        self._prepared: dict[str, asyncio.Task[_PreparedRun | None]] = {}
        self._refused: dict[str, str] = {}
        self._told: set[tuple[str, int, str]] = set()

    async def make(self, cell: RunCell, job_try: int) -> CellsOutcome:
        """Make one task's cells and say how it went; only a cancellation is raised."""
        try:
            if cell.run_id in self._refused:
                return await self._refuse(cell.run_id)
            run = await self._prepare(cell.run_id)
            if run is None:
                return CellsDropped(reason="run_ended")
            token = current_correlation.set(_correlation(run.spec, cell))
            try:
                return await self._generate(run, cell)
            finally:
                current_correlation.reset(token)
        except RecordRejected as error:
            return CellsDropped(reason=error.reason)
        except RunRefused as error:
            return await self._refuse(cell.run_id, str(error))
        except Exception as error:  # noqa: BLE001 - a failing cell must never end the worker
            return await self._failed(cell, job_try, error)

    async def _refuse(self, run_id: str, reason: str | None = None) -> CellsOutcome:
        """Leave a cell to other workers; where none may make it, the run's driver is told why."""
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
        await self._clients.aclose()

    async def _generate(self, run: _PreparedRun, cell: RunCell) -> CellsOutcome:
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
        inputs = await self._tracker.inputs(cell.run_id, cell.number, column.inputs)
        if inputs is None:
            return CellsDropped(reason="record_dropped")
        row = await generator.generate(inputs, run.context)
        return CellsMade(values={cell.number: _as_json(row, column.outputs)})

    async def _failed(self, cell: RunCell, job_try: int, error: Exception) -> CellsOutcome:
        if isinstance(error, ModelCallFailed) and error.is_rate_limited:
            return await self._refused_by_provider(cell, error)
        if isinstance(error, CoordinatorError | RedisError):
            log.info("cell_put_back", run_id=cell.run_id, reason=type(error).__name__)
            return CellsDeferred(delay_seconds=SERVER_AWAY_SECONDS, gives_back_try=True)
        reason = error.reason if isinstance(error, ModelCallFailed) else reason_of(error)
        kind = (cell.run_id, cell.column_index, reason)
        tell = log.info if kind in self._told else log.warning  # once each: a run has many cells
        self._told.add(kind)
        tell(
            "cell_failed",
            run_id=cell.run_id,
            column_index=cell.column_index,
            number=cell.number,
            job_try=job_try,
            reason=reason,
        )
        if not _may_be_mended(error):
            return CellsDropped(reason=_bounded(f"not_retryable: {reason}"))
        prepared = self._prepared.get(cell.run_id)
        run = prepared.result() if prepared and prepared.done() and not _failed(prepared) else None
        max_tries = run.spec.workflow.max_tries if run else 3
        if job_try >= max_tries:
            return CellsDropped(reason=_bounded(f"tries_exhausted: {reason}, {job_try} tries"))
        delay = min(RETRY_CAP_SECONDS, RETRY_BASE_SECONDS * 2 ** (job_try - 1))
        return CellsDeferred(delay_seconds=delay)

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

    async def _prepare(self, run_id: str) -> _PreparedRun | None:
        task = self._prepared.get(run_id)
        if task is None or _may_go_better(task):
            task = asyncio.get_running_loop().create_task(self._load(run_id))
            task.add_done_callback(_retrieve)
            self._prepared[run_id] = task
        return await outcome_of(task, f"preparing run {run_id!r}")

    async def _load(self, run_id: str) -> _PreparedRun | None:
        spec = await self._tracker.spec(run_id)
        if spec is None:
            return None
        workflow = self._workflow_here(spec.workflow)
        generators = await asyncio.to_thread(_generators_of, workflow)
        spec = spec.model_copy(update={"workflow": workflow})
        models = self._models_of(spec)
        if not await self._tracker.accept(run_id):
            raise RunRefused(f"every worker of the pool has refused run {run_id!r}.")
        for alias, model in workflow.models.items():
            resource = self._resolver.resolve(model.provider, model.model, model_alias=alias)
            await self._requests.register(
                resource.provider_model,
                alias,
                model.max_parallel_requests,
                admission_config(workflow, model),
            )
        return _PreparedRun(
            spec=spec,
            generators=generators,
            context=GenerationContext(models=models),
        )

    def _models_of(self, spec: RunSpec) -> WorkflowModels:
        """Return the models of a run.

        Raises:
            RunRefused: a provider's key or address cannot be used here.
        """
        try:
            return WorkflowModels(
                spec.workflow,
                executor=self._executor,
                clients=self._clients,
                resolver=self._resolver,
                group=RequestGroupSpec(key=spec.tenant, weight=spec.weight),
                environ=self._environ,
            )
        except ConfigurationError as error:
            raise RunRefused(f"worker {self._name} cannot make it: {error}") from error

    def _workflow_here(self, workflow: Workflow) -> Workflow:
        """Return a workflow as this worker may use it.

        Raises:
            RunRefused: it asks for something that is not allowed here, or not here.
        """
        here = apply_addresses(workflow, environ=self._environ)
        here = self._allowed.check(here, self._name)
        for provider in here.providers.values():
            key = provider.api_key_env
            if key is not None and not self._environ.get(key, "").strip():
                raise RunRefused(
                    f"variable {key} is not set in worker {self._name}; set it where that worker"
                    " starts, or stop the worker."
                )
        return here


def _retrieve(task: asyncio.Task[_PreparedRun | None]) -> None:
    """Have its exception seen: the next cell reads it, though all who waited were cancelled."""
    if not task.cancelled():
        task.exception()


def _generators_of(workflow: Workflow) -> tuple[RecordGenerator | RowGroupGenerator, ...]:
    return tuple(build_generator(column, workflow) for column in workflow.columns)


def _may_go_better(preparing: asyncio.Task[Any]) -> bool:
    """Whether to prepare a run again: what is wrong with its workflow stays wrong."""
    if not _failed(preparing) or preparing.cancelled():
        return _failed(preparing)
    error = preparing.exception()
    return not isinstance(error, Exception) or _may_be_mended(error)


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _may_be_mended(error: Exception) -> bool:
    """Whether another try may help: also elsewhere, where the seed file can be read."""
    if isinstance(error, ModelCallFailed):
        return error.is_retryable
    return isinstance(error, CoordinatorError | WorkflowError | EvaluatorUnavailable | RedisError)


def _bounded(reason: str) -> str:
    return RecordRejected(reason).reason


def _correlation(spec: RunSpec, cell: RunCell) -> RuntimeCorrelation:
    column = spec.workflow.columns[cell.column_index - 1]
    return RuntimeCorrelation(
        run_id=spec.run_id,
        row_group=cell.number // spec.workflow.buffer_size,
        task_column=column.outputs[0],
        task_type=column.scope.value,
    )


def _as_json(row: Mapping[str, Any], outputs: tuple[str, ...]) -> dict[str, str]:
    return {
        name: json.dumps(row[name], ensure_ascii=False, separators=(",", ":")) for name in outputs
    }
