"""Each call ends with a result or a typed error in time, under each fault of the server."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import forebay
from forebay.workers.arq.health import read_health
from tests.support_outages import CALLS, FAULTS, Caller, caller_behind, measured
from tests.support_proxy import FaultyProxy
from tests.support_scene import PATIENCE_SECONDS

SETTINGS = forebay.MemberSettings(ttl_seconds=3600.0, call_timeout_seconds=0.3, recheck_seconds=0.1)


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_call_ends_while_the_server_is_away(redis_url: str, fault: str) -> None:
    async with FaultyProxy(redis_url) as proxy, caller_behind(proxy, SETTINGS) as caller:
        FAULTS[fault](proxy)
        calls = [measured(call(caller), PATIENCE_SECONDS) for call in CALLS.values()]
        ends = dict(zip(CALLS, await asyncio.gather(*calls), strict=True))
        for name in ("acquire", "try_acquire", "register", "submit"):
            assert issubclass(ends[name].how, forebay.CoordinatorError), (name, ends[name])
        assert ends["release"].how is forebay.ReleaseResult
        left = await measured(Caller.leave(caller), PATIENCE_SECONDS)
        assert left.how is type(None)


async def test_a_state_that_passes_is_no_wrong_configuration(redis_url: str) -> None:
    async with FaultyProxy(redis_url) as proxy, caller_behind(proxy, SETTINGS) as caller:
        FAULTS["a busy script"](proxy)
        for name in ("connect", "snapshot", "audit", "an operator's cap", "doctor"):
            end = await measured(CALLS[name](caller), PATIENCE_SECONDS)
            assert end.how is forebay.CoordinatorUnavailable, name


async def test_a_release_that_a_full_server_refuses_is_repeated_with_pauses(
    redis_url: str,
) -> None:
    async with FaultyProxy(redis_url) as proxy, caller_behind(proxy, SETTINGS) as caller:
        FAULTS["full memory"](proxy)
        before = proxy.connection_count
        result = await caller.requests.release(caller.lease, forebay.SUCCESS)
        assert result.reason is forebay.ReleaseReason.DEFERRED
        assert proxy.connection_count - before < 20
        await proxy.accept()
        assert (await caller.requests.release(caller.lease, forebay.SUCCESS)).reason in {
            forebay.ReleaseReason.DUPLICATE,
            forebay.ReleaseReason.RELEASED,
        }


@pytest.fixture
def silent_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every look-up of a name wait until the test is over."""
    is_over = threading.Event()

    def wait(*_: Any, **__: Any) -> Any:
        is_over.wait()
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    yield
    is_over.set()


NOWHERE = "redis://redis.invalid"


async def _connect() -> None:
    async with forebay.connect(NOWHERE, SETTINGS):
        pass


@pytest.mark.usefixtures("silent_resolver")
def test_a_resolver_that_says_nothing_holds_up_no_call_and_no_end_of_a_loop() -> None:
    calls = (
        _connect,
        lambda: forebay.create_pool(NOWHERE, settings=SETTINGS),
        lambda: read_health(NOWHERE, "key"),
    )
    for call in calls:
        with pytest.raises(forebay.CoordinatorUnavailable):
            asyncio.run(call())
    with pytest.raises(forebay.CoordinatorUnavailable), forebay.connect(NOWHERE, SETTINGS):
        pass


async def test_a_name_that_is_not_known_ends_a_call_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    end = await measured(_connect(), PATIENCE_SECONDS)
    assert end.how is forebay.CoordinatorUnavailable


ARQS = ("enqueue_job", "a job's status", "a job's result", "a job's info", "the jobs of a pool",
        "the results of a pool")  # fmt: skip


@pytest.mark.parametrize("fault", [
    "it is gone", "it accepts, and says nothing (SIGSTOP, a network that swallows)",
    "a busy script", "another password",
])  # fmt: skip
async def test_commands_of_arqs_end_as_calls_do(redis_url: str, fault: str) -> None:
    async with FaultyProxy(redis_url) as proxy, caller_behind(proxy, SETTINGS) as caller:
        FAULTS[fault](proxy)
        for name in ARQS:
            end = await measured(CALLS[name](caller), PATIENCE_SECONDS)
            assert issubclass(end.how, forebay.CoordinatorUnavailable), name
        with pytest.raises(redis.ConnectionError, match=re.escape(proxy.url)):  # as arq's would
            await caller.jobs.get("key")
