"""The models of a workflow outside of a run: for health-check calls and previews (design 05)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestDomain, RequestGroupSpec
from forebay.contracts.workflow import Workflow
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.coordinator.server_connection import ServerConnection
from forebay.workers.executor import ModelRequestExecutor
from forebay.workers.generators.base import RecordRejected
from forebay.workers.runs.cell_failures import ModelCallFailed
from forebay.workers.runs.models import ProviderClients, WorkflowModels, admission_config

QUESTION: Final = "Answer with the word ok."
ANSWER_TOKENS: Final = 16
"""Bound of a health-check's answer: some providers refuse smaller ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """The result of a model's health-check call.

    Attributes:
        alias: of the workflow.
        name: provider and model.
        problem: why there was no answer; None where there was one.
    """

    alias: str
    name: str
    problem: str | None


@asynccontextmanager
async def open_models(
    url: str, workflow: Workflow, *, tenant: str = "default", domain: RequestDomain | None = None
) -> AsyncIterator[WorkflowModels]:
    """Open the models of a workflow in this process; each call is admitted on a server.

    Args:
        url: the server.
        workflow: as loaded.
        tenant: whose share of the windows the calls take.
        domain: the window of chat calls; None is that of chat.

    Raises:
        ConfigurationError: a provider's key or address cannot be used.
        CoordinatorError: the server cannot be used.
    """
    async with await ServerConnection.open(url) as connection:
        requests = AdaptiveRequestAdmissionController(connection)
        executor = ModelRequestExecutor(requests)
        clients = ProviderClients()
        resolver = RequestResourceResolver()
        try:
            models = WorkflowModels(
                workflow,
                executor=executor,
                clients=clients,
                resolver=resolver,
                group=RequestGroupSpec(key=tenant),
                environ=os.environ,
                chat_domain=domain or RequestDomain.CHAT,
            )
            for alias, model in workflow.models.items():
                resource = resolver.resolve(model.provider, model.model, model_alias=alias)
                await requests.register(
                    resource.provider_model,
                    alias,
                    model.max_parallel_requests,
                    admission_config(workflow, model),
                )
            yield models
        finally:
            await executor.aclose()
            await clients.aclose()
            await requests.close()


async def check_models_answer(url: str, workflow: Workflow) -> list[ModelCheck]:
    """Send one health-check call to each provider's model that the workflow names.

    The call is one attempt with an answer of at most ``ANSWER_TOKENS`` tokens, under a lease of the
    model's window for health checks.

    Raises:
        CoordinatorError: the server cannot be used.
    """
    first: dict[tuple[str, str], str] = {}
    for alias, model in workflow.models.items():
        first.setdefault((model.provider, model.model), alias)
    short = {
        alias: workflow.models[alias].model_copy(
            update={"max_attempts": 1, "max_tokens": ANSWER_TOKENS}
        )
        for alias in first.values()
    }
    bounded = workflow.model_copy(update={"models": short})
    found = []
    async with open_models(url, bounded, domain=RequestDomain.HEALTHCHECK) as models:
        for (provider, model_id), alias in first.items():
            problem = None
            try:
                await models.chat(alias, [{"role": "user", "content": QUESTION}])
            except (ModelCallFailed, RecordRejected, ConfigurationError) as error:
                problem = str(error)
            found.append(ModelCheck(alias=alias, name=f"{provider}/{model_id}", problem=problem))
    return found
