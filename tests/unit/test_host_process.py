"""Processes that Forebay refuses in a sentence, or runs in all the same."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import forebay
from forebay.connecting import classify_raised
from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.requests.threads import refuse_to_block_a_loop
from forebay.coordinator.server_connection import ServerConnection

URL = "redis://127.0.0.1:1"


def patched(name: str, function: str, *modules: str) -> Any:
    """A module that stands in for the part of a library that knows what it has patched."""
    module = ModuleType(name)
    setattr(module, function, lambda asked: asked in modules)
    return module


GREEN = [
    pytest.param(("gevent.monkey", "is_module_patched", "thread"), id="gevent, threads"),
    pytest.param(("gevent.monkey", "is_module_patched", "socket"), id="gevent, sockets alone"),
    pytest.param(("eventlet.patcher", "is_monkey_patched", "thread"), id="eventlet"),
]


@pytest.mark.parametrize("told", GREEN)
async def test_green_threads_are_refused_in_a_sentence_that_names_a_way(
    monkeypatch: pytest.MonkeyPatch, told: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, told[0], patched(*told))
    says = rf"^{told[0].partition('.')[0]} has monkey-patched .*expected .*`forebay proxy`"
    with pytest.raises(ConfigurationError, match=says):
        forebay.http_client(URL, sync=True, max_parallel_requests=8)
    with pytest.raises(ConfigurationError, match=says):
        await asyncio.to_thread(forebay.connect(URL).__enter__)
    with pytest.raises(ConfigurationError, match=says):
        await ServerConnection.open(URL)


def test_a_library_of_green_threads_that_has_patched_nothing_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gevent.monkey", patched("gevent.monkey", "is_module_patched"))
    forebay.http_client(URL, sync=True, max_parallel_requests=8)


def kernel(*, runs: bool) -> Any:
    app = ModuleType("ipykernel.kernelapp")
    app.IPKernelApp = SimpleNamespace(initialized=lambda: runs)
    return app


async def test_a_cell_of_a_notebook_may_block_its_loop_but_not_the_one_that_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigurationError, match="would block the event loop"):
        refuse_to_block_a_loop("this", "that")
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", kernel(runs=False))
    with pytest.raises(ConfigurationError, match="would block the event loop"):
        refuse_to_block_a_loop("this", "that")
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", kernel(runs=True))
    refuse_to_block_a_loop("this", "that")
    with pytest.raises(ConfigurationError, match="would block the event loop"):
        refuse_to_block_a_loop("this", "that", asyncio.get_running_loop())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ReadTimeoutError", "provider_timeout"),
        ("ConnectionClosedError", "provider_failure"),
        ("ResponseStreamingError", "provider_failure"),
        ("ConnectionError", "provider_failure"),
        ("ParamValidationError", "unexpected_exception"),
    ],
)
def test_what_botocore_raises_of_a_connection_is_known_by_name(name: str, kind: str) -> None:
    error = type(name, (Exception,), {"__module__": "botocore.exceptions"})()
    assert str(classify_raised(error).kind) == kind


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (
            {
                "Error": {"Code": "ThrottlingException", "Message": "Too many requests"},
                "ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": "3"}},
            },
            "rate_limited",
        ),
        ({"ResponseMetadata": {"HTTPStatusCode": 400}}, "provider_failure"),
        ({"ResponseMetadata": {"HTTPStatusCode": "429"}}, "unexpected_exception"),
        ({}, "unexpected_exception"),
    ],
)
def test_what_botocore_raises_is_classified_by_the_answer_that_it_carries(
    response: dict[str, Any], kind: str
) -> None:
    error = RuntimeError("as botocore.exceptions.ClientError")
    error.response = response
    outcome = classify_raised(error)
    assert str(outcome.kind) == kind
    assert outcome.retry_after_seconds == (3.0 if kind == "rate_limited" else None)
