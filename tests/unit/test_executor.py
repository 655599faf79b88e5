"""One attempt under one lease, whatever ends it (design 03, *Executor*)."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from collections.abc import Awaitable

import pytest

from forebay.contracts.errors import CoordinatorUnavailable, MembershipLost
from forebay.contracts.events import RequestEventContext, RuntimeCorrelation, current_correlation
from forebay.contracts.identity import RequestGroupSpec
from forebay.contracts.outcomes import TokenUsage
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestDenialReason,
)
from forebay.workers.executor import in_executor
from forebay.workers.model_request import ModelRequest
from forebay.workers.providers.openai_answers import ProviderHTTPError
from tests.support import wait_until
from tests.support_executor import KINDS, OUTAGE, RATE_LIMIT, RESOURCE, Calls, FakeAdmission, Make


async def test_an_attempt_is_acquire_call_release(admission: FakeAdmission, make: Make) -> None:
    request = ModelRequest(
        resource=RESOURCE,
        call=Calls(admission),
        group=RequestGroupSpec(key="run"),
        cost=7,
        queue_wait_timeout_seconds=3.0,
    )
    assert await make().execute_attempt(request) == "answer"
    assert admission.steps == ["acquire", "call", "release success"]
    (item,) = admission.items
    assert (item.resource, item.group.key, item.cost) == (RESOURCE, "run", 7)
    assert item.queue_wait_timeout_seconds == 3.0
    assert item.event_context.request_attempt_id == item.attempt_id


async def test_an_attempt_is_made_once_whatever_happens(
    admission: FakeAdmission, make: Make
) -> None:
    calls = Calls(admission, OUTAGE)
    with pytest.raises(ProviderHTTPError) as caught:
        await make().execute_attempt(ModelRequest(resource=RESOURCE, call=calls))
    assert caught.value is OUTAGE
    assert calls.made == 1
    assert admission.outcomes[0].kind is KINDS.PROVIDER_FAILURE


async def test_a_call_can_tell_that_it_runs_under_the_executor(
    admission: FakeAdmission, make: Make
) -> None:
    seen: list[bool] = []

    async def call() -> None:
        seen.append(in_executor.get())
        raise RATE_LIMIT

    with pytest.raises(ProviderHTTPError):
        await make().execute(ModelRequest(resource=RESOURCE, call=call, max_attempts=2))
    assert seen == [True, True]
    assert not in_executor.get()


def test_a_request_shows_nothing_of_its_call() -> None:
    prompt = "a prompt of a customer"
    request = ModelRequest(resource=RESOURCE, call=functools.partial(Calls, prompt))
    assert prompt not in repr(request)


async def test_the_correlation_is_captured_when_the_item_is_made(
    admission: FakeAdmission, make: Make
) -> None:
    correlation = RuntimeCorrelation(run_id="r", task_execution_id="t1")
    token = current_correlation.set(correlation)
    await make().execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
    current_correlation.reset(token)
    given = RequestEventContext(task_execution_id="t2")
    await make().execute(
        ModelRequest(resource=RESOURCE, call=Calls(admission), event_context=given)
    )
    first, second = (item.event_context for item in admission.items)
    assert (first.captured_correlation, first.task_execution_id) == (correlation, "t1")
    assert (second.captured_correlation, second.task_execution_id) == (None, "t2")


async def test_a_call_that_raises_before_it_awaits_gives_its_lease_back(
    admission: FakeAdmission, make: Make
) -> None:
    def call() -> Awaitable[str]:
        raise ValueError("no coroutine")

    with pytest.raises(ValueError, match="no coroutine"):
        await make().execute(ModelRequest(resource=RESOURCE, call=call))
    assert admission.outcomes[0].kind is KINDS.UNEXPECTED_EXCEPTION


async def test_a_denied_acquire_reaches_the_caller_and_is_not_retried(
    admission: FakeAdmission, make: Make
) -> None:
    item = RequestAdmissionItem(resource=RESOURCE)
    denied = RequestAdmissionDenied(item=item, reason=RequestDenialReason.QUEUE_TIMEOUT)
    for error in (RequestAdmissionError(denied, "timeout"), CoordinatorUnavailable("away")):
        admission.acquire_errors = [error]
        with pytest.raises(type(error)) as caught:
            await make().execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
        assert caught.value is error
    assert admission.steps == ["acquire", "acquire"]


async def test_nothing_is_sent_under_a_lease_that_may_be_lost(
    admission: FakeAdmission, make: Make
) -> None:
    calls = Calls(admission)
    admission.held_errors = [MembershipLost("asleep")]
    with pytest.raises(MembershipLost, match="asleep"):
        await make().execute_attempt(ModelRequest(resource=RESOURCE, call=calls))
    assert calls.made == 0
    assert admission.outcomes[0].kind is KINDS.LOCAL_CANCELLED
    assert admission.outcomes[0].usage == TokenUsage()


async def test_a_fault_of_the_check_itself_frees_the_lease_and_is_not_retried(
    admission: FakeAdmission, make: Make
) -> None:
    admission.held_errors = [TypeError("bug")]
    with pytest.raises(TypeError, match="bug"):
        await make().execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
    assert admission.outcomes[0].kind is KINDS.LOCAL_CANCELLED


async def test_cancelling_a_call_frees_its_lease_and_goes_on(
    admission: FakeAdmission, make: Make
) -> None:
    async def call() -> None:
        await asyncio.Event().wait()

    executor = make()
    task = asyncio.create_task(executor.execute(ModelRequest(resource=RESOURCE, call=call)))
    await wait_until(lambda: bool(admission.live))
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError, match="why"):
        await task
    assert admission.outcomes[0].kind is KINDS.LOCAL_CANCELLED
    await executor.aclose()
    assert admission.steps == ["acquire", "release local_cancelled", "acknowledged"]


async def test_a_release_that_is_not_answered_delays_neither_answer_nor_cancellation(
    admission: FakeAdmission, make: Make
) -> None:
    answered = asyncio.Event()
    admission.acknowledge = answered.wait
    executor = make()
    await executor.execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
    with pytest.raises(asyncio.CancelledError):
        await executor.execute(
            ModelRequest(resource=RESOURCE, call=Calls(admission, asyncio.CancelledError()))
        )
    assert "acknowledged" not in admission.steps
    answered.set()
    await executor.aclose()
    assert admission.steps.count("acknowledged") == 2


async def test_cancelling_a_retry_that_waits_for_its_release_leaves_the_release_alone(
    admission: FakeAdmission, make: Make
) -> None:
    answered = asyncio.Event()
    waiting = asyncio.Event()

    async def acknowledge() -> None:
        waiting.set()
        await answered.wait()

    admission.acknowledge = acknowledge
    executor = make()
    calls = Calls(admission, OUTAGE)
    task = asyncio.create_task(executor.execute(ModelRequest(resource=RESOURCE, call=calls)))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answered.set()
    await executor.aclose()
    assert admission.steps == ["acquire", "call", "release provider_failure", "acknowledged"]


async def test_a_release_under_way_survives_the_garbage_collector(
    admission: FakeAdmission, make: Make
) -> None:
    waiting: list[weakref.ref[asyncio.Future[None]]] = []

    async def acknowledge() -> None:
        future = asyncio.get_running_loop().create_future()
        waiting.append(weakref.ref(future))
        await future

    admission.acknowledge = acknowledge
    executor = make()
    await executor.execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
    await wait_until(lambda: bool(waiting))
    gc.collect()
    future = waiting[0]()
    assert future is not None
    future.set_result(None)
    await executor.aclose()
    assert admission.steps[-1] == "acknowledged"


async def test_a_release_that_fails_hides_neither_answer_nor_error(
    admission: FakeAdmission, make: Make
) -> None:
    async def fail() -> None:
        raise RuntimeError("against the contract")

    admission.acknowledge = fail
    executor = make()
    calls = Calls(admission, OUTAGE)
    assert await executor.execute(ModelRequest(resource=RESOURCE, call=calls)) == "answer"
    await executor.aclose()
