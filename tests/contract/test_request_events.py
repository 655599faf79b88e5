"""Each attempt tells its wait, its lease and its call, to the sinks of its process (design 07)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

import forebay
from forebay.contracts.events import RuntimeCorrelation, RuntimeEvent, current_correlation
from forebay.contracts.outcomes import SUCCESS
from forebay.coordinator import event_outlet
from forebay.sinks import MemorySink

MODEL = forebay.ProviderModelKey(provider_name="p", model_id="m")
CHAT = forebay.RequestResourceKey(provider_model=MODEL)
UNREGISTERED = forebay.RequestAdmissionItem(
    resource=forebay.RequestResourceKey(
        provider_model=forebay.ProviderModelKey(provider_name="p", model_id="unknown")
    ),
    attempt_id="u",
)
PATIENT = forebay.MemberSettings(call_timeout_seconds=120)
ENDS = {"request_wait_completed", "request_wait_timeout", "request_wait_cancelled"}


class Broken:
    """A sink that raises at each event."""

    def emit_request_event(self, event: RuntimeEvent) -> None:
        raise RuntimeError(event.event_kind)


def item(name: str, **terms: Any) -> forebay.RequestAdmissionItem:
    return forebay.RequestAdmissionItem(resource=CHAT, attempt_id=name, **terms)


def kinds_of(sink: MemorySink, attempt: str) -> list[str]:
    return [one.event_kind for one in sink.events if one.request_attempt_id == attempt]


async def test_every_attempt_has_one_wait_and_what_it_came_to(redis_url: str) -> None:
    sink = MemorySink()
    correlation = RuntimeCorrelation(run_id="r", task_execution_id="x")
    async with forebay.connect(redis_url, PATIENT, event_sinks=[Broken(), sink]) as requests:
        await requests.register(MODEL, "a", 1)
        current_correlation.set(correlation)
        held = await asyncio.create_task(requests.acquire(item("child")))
        requests.assert_held(held)
        current_correlation.set(None)
        await requests.try_acquire(item("denied"))
        with pytest.raises(forebay.RequestAdmissionError):
            await requests.acquire(item("late", queue_wait_timeout_seconds=0))
        cancelled = asyncio.create_task(requests.acquire(item("cancelled")))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        waiting = asyncio.create_task(requests.acquire(item("next")))
        assert (await requests.release(held, SUCCESS)).released
        assert (await requests.release(await waiting, SUCCESS)).released
        with pytest.raises(forebay.RequestAdmissionError):
            await requests.acquire(UNREGISTERED)

    assert kinds_of(sink, "child") == [
        "request_wait_started",
        "request_wait_completed",
        "request_lease_acquired",
        "model_request_started",
        "model_request_completed",
        "request_lease_released",
    ]
    denied = ["request_wait_started", "request_wait_completed", "request_acquire_denied"]
    assert kinds_of(sink, "denied") == kinds_of(sink, "u") == denied
    assert kinds_of(sink, "late")[1:] == ["request_wait_timeout", "request_acquire_denied"]
    assert kinds_of(sink, "cancelled") == ["request_wait_started", "request_wait_cancelled"]
    waits = Counter(one.event_kind for one in sink.events)
    assert waits["request_wait_started"] == sum(waits[end] for end in ENDS) == 6
    correlated = {one.request_attempt_id for one in sink.events if one.correlation is not None}
    assert correlated == {"child"}
    [acquired] = [one for one in sink.events if one.event_kind == "request_lease_acquired"][:1]
    assert acquired.captured_at == held.acquired_at
    assert all(
        one.diagnostics["wait_seconds"] >= 0 for one in sink.events if one.event_kind in ENDS
    )


async def test_without_a_sink_of_requests_nothing_is_built(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def construct(kind: str, *_: Any) -> Any:
        raise AssertionError(kind)

    monkeypatch.setattr(event_outlet, "RuntimeEvent", construct)
    async with forebay.connect(redis_url, PATIENT) as requests:
        await requests.register(MODEL, "a", 1)
        async with requests.attempt(item("quiet")) as attempt:
            requests.assert_held(attempt.lease)


def test_attempts_of_threads_carry_the_correlation_of_their_thread(redis_url: str) -> None:
    sink = MemorySink()
    with forebay.connect(redis_url, PATIENT, event_sinks=[sink]) as requests:
        requests.register(MODEL, "a", 1)
        with requests.attempt(item("alone")):
            pass
        token = current_correlation.set(RuntimeCorrelation(run_id="r"))
        with requests.attempt(item("passed")):
            pass
        current_correlation.reset(token)

    found = {one.request_attempt_id: one.correlation for one in sink.events}
    assert found == {"alone": None, "passed": RuntimeCorrelation(run_id="r")}
