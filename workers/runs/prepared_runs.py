"""Runs prepared in a worker: checked, registered and with generators.

Rules: design 05, *Drivers*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forebay.contracts.errors import ConfigurationError, RunRefused
from forebay.contracts.identity import RequestGroupSpec
from forebay.contracts.runs import RunSpec
from forebay.contracts.workflow import Workflow
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.coordinator.runs.tracker import CompletionTracker
from forebay.coordinator.supervision import outcome_of
from forebay.workers.executor import ModelRequestExecutor
from forebay.workers.generators.base import GenerationContext, RecordGenerator, RowGroupGenerator
from forebay.workers.generators.registry import build_generator
from forebay.workers.runs.allowlist import Allowlist
from forebay.workers.runs.cell_failures import may_be_mended
from forebay.workers.runs.cells import this_worker
from forebay.workers.runs.models import ProviderClients, WorkflowModels, admission_config
from forebay.workers.runs.workflow_file import apply_addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """A run prepared for making its cells in this worker.

    Attributes:
        spec: its plan, with the addresses that hold here.
        generators: one for each column, in order.
        context: what they are given.
    """

    spec: RunSpec
    generators: tuple[RecordGenerator | RowGroupGenerator, ...]
    context: GenerationContext


class PreparedRuns:
    """Prepares each run once in a worker process.

    Args:
        tracker: where plans are read.
        requests: request admission, where the models of runs are registered.
        executor: makes the calls of models.
        environ: keys and addresses of providers.
        allowed: what of the environment, the files and the network a run may use here.
    """

    def __init__(
        self,
        tracker: CompletionTracker,
        requests: AdaptiveRequestAdmissionController,
        executor: ModelRequestExecutor,
        environ: Mapping[str, str],
        allowed: Allowlist,
    ) -> None:
        self._tracker = tracker
        self._requests = requests
        self._executor = executor
        self._environ = environ
        self._allowed = allowed
        self._name = this_worker()
        self._clients = ProviderClients()
        self._resolver = RequestResourceResolver()
        self._prepared: dict[str, asyncio.Task[PreparedRun | None]] = {}

    def known(self, run_id: str) -> PreparedRun | None:
        """Return a prepared run; None if not yet prepared, or if that failed."""
        prepared = self._prepared.get(run_id)
        return prepared.result() if prepared and prepared.done() and not _failed(prepared) else None

    async def aclose(self) -> None:
        """Close the provider clients."""
        await self._clients.aclose()

    async def get(self, run_id: str) -> PreparedRun | None:
        """Return a run, prepared now or before; None where it has ended.

        Raises:
            RunRefused: it asks for what is not allowed here, or not here.
            CoordinatorError, RedisError: the server could not be used.
            Exception: what is wrong with the workflow; raised again until the run ends.
        """
        task = self._prepared.get(run_id)
        if task is None or _may_go_better(task):
            task = asyncio.get_running_loop().create_task(self._load(run_id))
            task.add_done_callback(_retrieve)
            self._prepared[run_id] = task
        return await outcome_of(task, f"preparing run {run_id!r}")

    async def _load(self, run_id: str) -> PreparedRun | None:
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
        return PreparedRun(
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
        """Return a workflow checked by this worker's allowlist.

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


def _retrieve(task: asyncio.Task[PreparedRun | None]) -> None:
    """Retrieve a task's exception, as its callers may all have been cancelled."""
    if not task.cancelled():
        task.exception()


def _generators_of(workflow: Workflow) -> tuple[RecordGenerator | RowGroupGenerator, ...]:
    return tuple(build_generator(column, workflow) for column in workflow.columns)


def _may_go_better(preparing: asyncio.Task[Any]) -> bool:
    """Whether to prepare a run again; errors of its workflow are permanent."""
    if not _failed(preparing) or preparing.cancelled():
        return _failed(preparing)
    error = preparing.exception()
    return not isinstance(error, Exception) or may_be_mended(error)


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
