"""What an executor and its requests refuse, before anything is asked or sent."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, cast

import pytest

import forebay
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.coordinator.requests.blocking import BlockingRequestAdmissionController
from forebay.transports.rules import Rules
from forebay.workers.executor import ModelRequestExecutor
from forebay.workers.model_request import ModelRequest
from forebay.workers.providers.classification import DefaultClassifier
from forebay.workers.providers.token_estimate import CharacterEstimator
from forebay.workers.retries import RetryBudget, RetryPolicy
from tests.support_executor import RESOURCE, FakeAdmission, Make

URL = "redis://:secret@localhost"
BLOCKING = BlockingRequestAdmissionController(cast("Any", None))


@pytest.mark.parametrize("wrong", [URL, None, BLOCKING, FakeAdmission, forebay.connect(URL)])
def test_a_controller_that_is_none_on_a_loop_is_refused_and_not_shown(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="async with forebay") as caught:
        ModelRequestExecutor(wrong)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("classifier", DefaultClassifier),
        ("classifier", "default"),
        ("classifier", 0),
        ("retry", 3),
        ("retry", 0),
        ("retry", RetryPolicy),
        ("retry_budget", 5),
        ("retry_budget", RetryBudget),
    ],
)
def test_a_part_of_another_kind_is_refused_by_its_name(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is .*expected"):
        ModelRequestExecutor(FakeAdmission(), **{name: wrong})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("classifier", DefaultClassifier),
        ("classifier", print),
        ("estimator", CharacterEstimator),
        ("estimator", len),
        ("estimator", 4),
    ],
)
def test_a_transport_refuses_them_as_well(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is .*expected"):
        Rules(**{name: wrong})


async def test_a_call_that_was_begun_already_is_refused() -> None:
    async def call() -> None:
        raise AssertionError

    begun = call()
    with pytest.raises(ConfigurationError, match="type coroutine, expected a function"):
        ModelRequest(resource=RESOURCE, call=cast("Any", begun))
    begun.close()


async def test_a_call_that_blocks_is_refused_and_its_answer_not_shown(
    admission: FakeAdmission, make: Make
) -> None:
    def call() -> Awaitable[str]:
        return cast("Any", "a completion")

    with pytest.raises(ConfigurationError, match=r"expected an awaitable; .*to_thread") as caught:
        await make().execute(ModelRequest(resource=RESOURCE, call=call))
    assert "completion" not in str(caught.value)
    assert admission.steps[:2] == ["acquire", "release unexpected_exception"]
    assert [o.kind for o in admission.outcomes] == [RequestOutcomeKind.UNEXPECTED_EXCEPTION]
