"""Each call ends with a result or a typed error in time, under each fault of the server."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import forebay
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


async def test_a_name_that_nobody_resolves_ends_a_call_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)

    async def connect() -> None:
        async with forebay.connect("redis://redis.invalid", SETTINGS):
            pass

    end = await measured(connect(), PATIENCE_SECONDS)
    assert end.how is forebay.CoordinatorUnavailable

    async def fails(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fails)
    end = await measured(connect(), PATIENCE_SECONDS)
    assert end.how is forebay.CoordinatorUnavailable
