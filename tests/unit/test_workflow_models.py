from __future__ import annotations

import json

import httpx2
import pytest
from pydantic import SecretStr

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestGroupSpec
from forebay.contracts.outcomes import TokenUsage
from forebay.contracts.workflow import ModelSpec, OutputSpec, ProviderSpec, WorkflowSettings
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.mock_provider.app import create_app
from forebay.workers.executor import ModelRequestExecutor
from forebay.workers.generators.base import ChatAnswer, ModelCaller
from forebay.workers.providers.token_estimate import CharacterEstimator
from forebay.workers.runs.cell_failures import ModelCallFailed
from forebay.workers.runs.models import ProviderClients, WorkflowModels
from tests.support_executor import FakeAdmission

URL = "http://mock/v1"
KEY = "sk-secret"
MESSAGES = [{"role": "user", "content": "What is a forebay good for?"}]
WORKFLOW = WorkflowSettings(
    name="w",
    output=OutputSpec(path="out.jsonl"),
    providers={"Local": ProviderSpec(base_url=URL, api_key_env="MOCK_KEY")},
    models={
        "writer": ModelSpec(
            provider="Local", model="mock", max_parallel_requests=2, max_tokens=50, temperature=0.3
        ),
        "judge": ModelSpec(provider="Local", model="mock", max_parallel_requests=2, max_attempts=2),
    },
)


class House:
    """A workflow's models over a provider in this process."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self.admission = FakeAdmission()
        self.executor = ModelRequestExecutor(self.admission, draw=lambda: 0.0)
        self.clients = ProviderClients(transport=transport)
        self.models: ModelCaller = WorkflowModels(
            WORKFLOW,
            executor=self.executor,
            clients=self.clients,
            resolver=RequestResourceResolver(),
            group=RequestGroupSpec(key="run-1", weight=2.0),
            environ={"MOCK_KEY": f" {KEY}\n"},
        )

    async def close(self) -> None:
        await self.executor.aclose()
        await self.clients.aclose()


def mock_house() -> House:
    return House(httpx2.ASGITransport(app=create_app(api_key=KEY)))


async def test_a_call_goes_to_the_aliass_model_under_a_lease_of_the_run() -> None:
    house = mock_house()
    answer = await house.models.chat("writer", MESSAGES)
    await house.close()
    assert isinstance(answer, ChatAnswer)
    assert answer.text
    (item,) = house.admission.items
    assert str(item.resource) == "local/mock/chat"
    assert item.group == RequestGroupSpec(key="run-1", weight=2.0)
    assert item.cost == CharacterEstimator().estimate({"messages": MESSAGES}) + 50
    (outcome,) = house.admission.outcomes
    assert outcome.usage == TokenUsage(
        input_tokens=answer.input_tokens, output_tokens=answer.output_tokens
    )
    assert answer.input_tokens > 0
    assert answer.output_tokens > 0


async def test_aliases_of_one_model_share_its_resource_and_its_connections() -> None:
    house = mock_house()
    for alias in ("writer", "judge"):
        await house.models.chat(alias, MESSAGES)
    assert len({item.resource for item in house.admission.items}) == 1
    first = house.clients.client(URL, SecretStr(KEY))
    assert house.clients.client(URL + "/", SecretStr(KEY)) is first
    assert house.clients.client(URL, SecretStr("other")) is not first
    assert KEY not in repr(vars(house.clients))
    await house.close()


async def test_a_schema_reaches_the_provider() -> None:
    house = mock_house()
    schema = {"type": "object", "properties": {"kind": {"enum": ["a"]}}, "required": ["kind"]}
    answer = await house.models.chat("judge", MESSAGES, response_schema=schema)
    assert json.loads(answer.text)["kind"] == "a"
    await house.close()


async def test_a_model_is_tried_as_often_as_its_spec_says() -> None:
    house = House(httpx2.MockTransport(lambda _: httpx2.Response(500)))
    with pytest.raises(ModelCallFailed, match=r"^500 from local/mock$"):
        await house.models.chat("judge", MESSAGES)
    assert len(house.admission.items) == 2
    await house.close()


async def test_tokens_that_a_provider_does_not_count_are_zero() -> None:
    document = {"choices": [{"message": {"content": "x"}}]}
    house = House(httpx2.MockTransport(lambda _: httpx2.Response(200, json=document)))
    answer = await house.models.chat("writer", MESSAGES)
    assert answer == ChatAnswer(text="x", input_tokens=0, output_tokens=0)
    assert house.admission.outcomes[0].usage is None
    await house.close()


async def test_a_closed_client_is_replaced_by_a_new_one() -> None:
    clients = ProviderClients()
    first = clients.client(URL)
    await clients.aclose()
    assert clients.client(URL) is not first
    await clients.aclose()


async def test_an_unknown_alias_is_refused_by_name() -> None:
    house = mock_house()
    with pytest.raises(ConfigurationError, match=r"'editor' is not one of .*: writer, judge"):
        await house.models.chat("editor", MESSAGES)
    assert house.admission.items == []
    await house.close()


@pytest.mark.parametrize("environ", [{}, {"MOCK_KEY": " "}])
def test_a_key_that_is_not_set_is_named_by_its_variable(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"provider 'Local' .* MOCK_KEY, which is not set"):
        WorkflowModels(
            WORKFLOW,
            executor=ModelRequestExecutor(FakeAdmission()),
            clients=ProviderClients(),
            resolver=RequestResourceResolver(),
            environ=environ,
        )


def test_a_model_of_no_provider_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="model 'writer' names provider 'Local'"):
        WorkflowModels(
            WORKFLOW.model_copy(update={"providers": {}}),
            executor=ModelRequestExecutor(FakeAdmission()),
            clients=ProviderClients(),
            resolver=RequestResourceResolver(),
            environ={},
        )
