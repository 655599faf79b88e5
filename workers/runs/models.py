"""The models of a workflow, as generators see them: each call under admission (design 05)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx2
from pydantic import SecretStr
from redis.exceptions import RedisError

from forebay.contracts.errors import ConfigurationError, CoordinatorError
from forebay.contracts.identity import RequestDomain, RequestGroupSpec, RequestResourceKey
from forebay.contracts.outcomes import TokenUsage
from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from forebay.contracts.workflow import ModelSpec, ProviderSpec, WorkflowSettings
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.workers.executor import ModelRequestExecutor
from forebay.workers.generators.base import ChatAnswer, RecordRejected
from forebay.workers.model_request import ModelRequest
from forebay.workers.providers.answer_bodies import ANSWER_TOO_LONG
from forebay.workers.providers.openai_answers import (
    ProviderAnswer,
    ProviderCompletion,
    ProviderEmbeddings,
    ProviderHTTPError,
)
from forebay.workers.providers.openai_client import OpenAICompatibleClient
from forebay.workers.providers.token_estimate import CharacterEstimator
from forebay.workers.runs.cell_failures import ModelCallFailed
from forebay.workers.runs.cell_use import noted_attempt

Answer = TypeVar("Answer", bound=ProviderAnswer)


class ProviderClients:
    """One client per provider URL and key of a process, so that connections are shared.

    Args:
        transport: replaces the network; for tests.
    """

    def __init__(self, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._clients: dict[tuple[str, SecretStr | None], OpenAICompatibleClient] = {}

    def client(self, base_url: str, api_key: SecretStr | None = None) -> OpenAICompatibleClient:
        """Return the client of a URL and key.

        Raises:
            ConfigurationError: the URL or the key cannot be used.
        """
        identity = (base_url.rstrip("/"), api_key)
        if identity not in self._clients:
            self._clients[identity] = OpenAICompatibleClient(
                base_url, api_key, transport=self._transport
            )
        return self._clients[identity]

    async def aclose(self) -> None:
        """Close every client; a later `client` opens a new one."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()


def admission_config(workflow: WorkflowSettings, model: ModelSpec) -> RequestAdmissionConfig:
    """Return what an alias of a workflow registers besides its cap.

    Aliases of one provider's model share its window: one that says nothing of it registers what
    another one says, so that their order does not matter.
    """
    identity = (model.provider, model.model)
    aliases = [each for each in workflow.models.values() if (each.provider, each.model) == identity]
    initial = next((each.initial_limit for each in aliases if each.initial_limit), None)
    tuning = next((each.tuning for each in aliases if each.tuning), None)
    return RequestAdmissionConfig(
        tuning=tuning or RequestAdmissionTuningConfig(),
        initial_limits={} if initial is None else dict.fromkeys(RequestDomain, initial),
        quotas=model.quotas,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    spec: ModelSpec
    resource: RequestResourceKey
    client: OpenAICompatibleClient
    base_url: str
    has_json_schema: bool


class WorkflowModels:
    """Implements `forebay.workers.generators.base.ModelCaller` for one workflow.

    Args:
        workflow: its providers and models.
        executor: makes the attempts; not closed here.
        clients: of this process; not closed here.
        resolver: the process's factory of resource keys.
        group: who asks, for the fair queue: the run, usually.
        environ: where the keys are.
        chat_domain: whose windows calls of `chat` take.

    Raises:
        ConfigurationError: a model names no provider, or a provider's key is not set or no key.
    """

    def __init__(
        self,
        workflow: WorkflowSettings,
        *,
        executor: ModelRequestExecutor,
        clients: ProviderClients,
        resolver: RequestResourceResolver,
        group: RequestGroupSpec | None = None,
        environ: Mapping[str, str] | None = None,
        chat_domain: RequestDomain = RequestDomain.CHAT,
    ) -> None:
        environ = os.environ if environ is None else environ
        self._executor = executor
        self._group = group or RequestGroupSpec()
        self._estimator = CharacterEstimator()
        self._models: dict[str, _Model] = {}
        for alias, spec in workflow.models.items():
            provider = workflow.providers.get(spec.provider)
            if provider is None:
                raise ConfigurationError(
                    f"model {alias!r} names provider {spec.provider!r}, expected one of:"
                    f" {', '.join(workflow.providers) or 'none'}; add it to providers."
                )
            self._models[alias] = _Model(
                spec=spec,
                resource=resolver.resolve(
                    spec.provider, spec.model, chat_domain, model_alias=alias
                ),
                client=_client_of(clients, spec.provider, provider, environ),
                base_url=provider.base_url,
                has_json_schema=provider.json_schema,
            )

    async def chat(
        self,
        alias: str,
        messages: list[dict[str, str]],
        *,
        response_schema: Mapping[str, Any] | None = None,
    ) -> ChatAnswer:
        """Ask the model ``alias``; tokens are 0 where the provider did not count them.

        Args:
            alias: a key of the workflow's ``models``.
            messages: with ``role`` and ``content``.
            response_schema: JSON Schema of the answer; the provider may still break it.

        Raises:
            ConfigurationError: there is no such alias.
            RecordRejected: the answer is longer than the model's ``max_answer_bytes``.
            ModelCallFailed: there is no answer; says why.
            CoordinatorError, RedisError: the shared state could not be used.
        """
        model = self._model(alias)
        spec = model.spec

        async def ask() -> ProviderCompletion:
            return await model.client.chat(
                spec.model,
                messages,
                temperature=spec.temperature,
                max_tokens=spec.max_tokens,
                response_format=_response_format(response_schema)
                if model.has_json_schema
                else None,
                timeout_seconds=spec.timeout_seconds,
                max_answer_bytes=spec.max_answer_bytes,
            )

        body = {"messages": messages, "max_tokens": spec.max_tokens}
        answer = await self._answer(alias, model, model.resource, ask, body)
        usage = answer.usage or TokenUsage()
        return ChatAnswer(
            text=answer.text,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            is_cut=answer.is_cut,
        )

    async def embed(self, alias: str, texts: Sequence[str]) -> list[list[float]]:
        """Return the vector of each text by the model ``alias``, in order, in one call.

        Raises as `chat` does.
        """
        model = self._model(alias)

        async def ask() -> ProviderEmbeddings:
            return await model.client.embed(
                model.spec.model, texts, timeout_seconds=model.spec.timeout_seconds
            )

        resource = replace(model.resource, domain=RequestDomain.EMBEDDING)
        answer = await self._answer(alias, model, resource, ask, {"input": list(texts)})
        return [list(vector) for vector in answer.vectors]

    def _model(self, alias: str) -> _Model:
        model = self._models.get(alias)
        if model is None:
            raise ConfigurationError(
                f"model {alias!r} is not one of the workflow's:"
                f" {', '.join(self._models) or 'none'}; add it to models."
            )
        return model

    async def _answer(
        self,
        alias: str,
        model: _Model,
        resource: RequestResourceKey,
        ask: Callable[[], Awaitable[Answer]],
        body: Mapping[str, Any],
    ) -> Answer:
        """Make a call under leases; an error names the model and the failure.

        Args:
            alias: for messages.
            model: what is called.
            resource: whose window it takes.
            ask: makes one attempt.
            body: by which its tokens are estimated.
        """
        request = ModelRequest(
            resource=resource,
            call=noted_attempt(ask, str(resource.provider_model)),
            group=self._group,
            cost=self._estimator.estimate(body),
            max_attempts=model.spec.max_attempts,
        )
        try:
            return await self._executor.execute(request)
        except (CoordinatorError, RedisError):
            raise
        except Exception as error:
            if isinstance(error, ProviderHTTPError) and error.error_code == ANSWER_TOO_LONG:
                raise RecordRejected(
                    f"answer_too_long: {model.spec.provider}/{model.spec.model} answered with more"
                    f" than {model.spec.max_answer_bytes:,} bytes, the max_answer_bytes of model"
                    f" {alias!r}"
                ) from None
            raise ModelCallFailed(
                resource, error, base_url=model.base_url, timeout=model.spec.timeout_seconds
            ) from error


def _client_of(
    clients: ProviderClients, name: str, provider: ProviderSpec, environ: Mapping[str, str]
) -> OpenAICompatibleClient:
    key = _key_of(name, provider, environ)
    try:
        return clients.client(provider.base_url, key)
    except ConfigurationError as error:
        of_key = f" with the key in variable {provider.api_key_env}" if key else ""
        raise ConfigurationError(f"provider {name!r}{of_key} cannot be called: {error}") from error


def _key_of(name: str, provider: ProviderSpec, environ: Mapping[str, str]) -> SecretStr | None:
    if provider.api_key_env is None:
        return None
    key = environ.get(provider.api_key_env, "").strip()
    if not key:
        raise ConfigurationError(
            f"provider {name!r} expects its API key in the environment variable"
            f" {provider.api_key_env}, which is not set; export it where the workers start."
        )
    return SecretStr(key)


def _response_format(schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    # Not "strict": providers then refuse most schemas that a user writes, and answers are
    # checked by the generator anyway.
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}
