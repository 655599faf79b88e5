"""Calls through a client tell their events, in the task or thread that made them (design 07)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx2
import pytest

import forebay
from forebay.contracts.events import RuntimeCorrelation, current_correlation
from forebay.contracts.runtime_view import INSTANTS, CorrelatedRuntimeView
from forebay.sinks import MemorySink

MODEL = forebay.ProviderModelKey(provider_name="p", model_id="m")
URL = "https://provider.test/v1/chat/completions"
RESOLVE = forebay.HttpResolver({"provider.test": MODEL.provider_name})
OF_A_CALL = [*INSTANTS[5:8], *INSTANTS[8:11]]


def answer(_request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, json={"usage": {"prompt_tokens": 3, "completion_tokens": 2}})


def options(sink: MemorySink) -> dict[str, Any]:
    return {
        "max_parallel_requests": 2,
        "resolve": RESOLVE,
        "event_sinks": [sink],
        "inner": httpx2.MockTransport(answer),
    }


async def test_calls_of_child_tasks_and_of_to_thread_belong_to_the_task_that_made_them(
    redis_url: str,
) -> None:
    sink = MemorySink()
    async with forebay.http_client(redis_url, **options(sink)) as client:

        async def call(execution: str) -> None:
            current_correlation.set(RuntimeCorrelation(run_id="r", task_execution_id=execution))
            await asyncio.gather(*(client.post(URL, json={"model": "m"}) for _ in range(2)))

        await asyncio.gather(call("t~1"), call("t~2"))
        await client.post(URL, json={"model": "m"})

    view = CorrelatedRuntimeView(sink.events)
    assert {name: list(task.instants) for name, task in view.tasks.items()} == {
        "t~1": OF_A_CALL, "t~2": OF_A_CALL
    }  # fmt: skip
    assert view.held_up_by("r") in {"request_wait", "provider"}
    assert view.uncorrelated_count == len(OF_A_CALL)


def test_calls_of_a_client_for_threads_are_correlated_where_that_was_passed_on(
    redis_url: str,
) -> None:
    sink = MemorySink()
    with forebay.http_client(redis_url, sync=True, **options(sink)) as client:

        def call(correlation: RuntimeCorrelation | None) -> None:
            current_correlation.set(correlation)
            client.post(URL, json={"model": "m"})

        of_task = RuntimeCorrelation(task_execution_id="t~1")
        threads = [threading.Thread(target=call, args=(one,)) for one in (of_task, None)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    view = CorrelatedRuntimeView(sink.events)
    assert {name: list(task.instants) for name, task in view.tasks.items()} == {"t~1": OF_A_CALL}
    assert view.uncorrelated_count == len(OF_A_CALL)


async def test_sinks_beside_a_controller_or_that_take_nothing_are_refused_at_once(
    redis_url: str,
) -> None:
    async with forebay.connect(redis_url) as requests:
        with pytest.raises(forebay.ConfigurationError, match=r"forebay.connect\(url, event_sinks="):
            forebay.http_client(requests, event_sinks=[MemorySink()])
    wrong: Any = [print]
    with pytest.raises(forebay.ConfigurationError, match="expected an object with emit_scheduler"):
        forebay.http_client(redis_url, max_parallel_requests=1, event_sinks=wrong)
