"""``async with`` attempts, outcomes and the decorator on a real server (design 02; design 03)."""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest

import forebay
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import CHAT, MODEL, counts, is_idle, item, when
from tests.support import wait_until

Kind = forebay.RequestOutcomeKind


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[ServerConnection]:
    async with await ServerConnection.open(redis_url) as connection:
        yield connection


@pytest.fixture
async def requests(redis_url: str) -> AsyncIterator[forebay.AdaptiveRequestAdmissionController]:
    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 4)
        yield requests


def answered(status: int, **headers: str) -> httpx2.HTTPStatusError:
    request = httpx2.Request("POST", "https://api.example/v1/chat/completions")
    response = httpx2.Response(status, headers=headers, request=request)
    return httpx2.HTTPStatusError("refused", request=request, response=response)


async def test_each_exception_is_counted_as_its_outcome_and_reaches_the_caller(
    requests: forebay.AdaptiveRequestAdmissionController, connection: ServerConnection
) -> None:
    errors = [
        TimeoutError("read"),
        ConnectionResetError("reset"),
        httpx2.PoolTimeout("pool"),
        answered(500),
        ValueError("nobody foresaw this"),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
    ]
    for error in errors:
        with pytest.raises(type(error)) as caught:
            async with requests.attempt(item()):
                raise error
        assert caught.value is error
    async with requests.attempt(item()):
        pass
    assert counts(await when(connection, is_idle)) == {
        "success": 1,
        "provider_timeout": 1,
        "provider_failure": 2,
        "local_timeout": 1,
        "unexpected_exception": 1,
        "local_cancelled": 2,
    }


async def test_sdk_exception_of_a_429_cuts_the_window_and_cools_down_as_its_answer_says(
    requests: forebay.AdaptiveRequestAdmissionController, connection: ServerConnection
) -> None:
    with pytest.raises(httpx2.HTTPStatusError):
        async with requests.attempt(item()):
            raise answered(429, **{"retry-after": "70"})
    seen = await when(connection, is_idle)
    assert (seen.current_limit, seen.cuts) == (1, 1)
    assert 60 < seen.cooldown_remaining_seconds <= 70


async def test_callers_outcome_wins(
    requests: forebay.AdaptiveRequestAdmissionController, connection: ServerConnection
) -> None:
    with suppress(ValueError):
        async with requests.attempt(item()) as attempt:
            attempt.outcome = forebay.RequestReleaseOutcome(kind=Kind.PROVIDER_FAILURE)
            raise ValueError
    async with requests.attempt(item()) as attempt:
        attempt.rate_limited(retry_after_seconds=70.0)
    seen = await when(connection, is_idle)
    assert counts(seen) == {"provider_failure": 1, "rate_limited": 1}
    assert 60 < seen.cooldown_remaining_seconds <= 70


async def test_block_is_left_with_its_release_under_way_but_not_awaited(
    requests: forebay.AdaptiveRequestAdmissionController, connection: ServerConnection
) -> None:
    turned: list[bool] = []
    async with requests.attempt(item()):
        asyncio.get_running_loop().call_soon(turned.append, True)
    assert turned == []
    assert counts(await when(connection, is_idle)) == {"success": 1}


async def test_cancelled_block_leaves_no_lease(
    requests: forebay.AdaptiveRequestAdmissionController, connection: ServerConnection
) -> None:
    entered = asyncio.Event()

    async def hold() -> None:
        async with requests.attempt(item()):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counts(await when(connection, is_idle)) == {"local_cancelled": 1}


async def test_cancelling_while_acquiring_leaves_no_waiter(
    requests: forebay.AdaptiveRequestAdmissionController, connection: ServerConnection
) -> None:
    entered: list[int] = []

    async def ask() -> None:
        async with requests.attempt(item()):
            entered.append(1)

    leases = [await requests.acquire(item()) for _ in range(4)]
    task = asyncio.create_task(ask())
    await when(connection, lambda seen: seen.waiters == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await when(connection, lambda seen: seen.waiters == 0)
    for lease in leases:
        await requests.release(lease, forebay.SUCCESS)
    await when(connection, is_idle)
    assert entered == []


async def test_denied_attempt_never_enters_its_block(
    requests: forebay.AdaptiveRequestAdmissionController, connection: ServerConnection
) -> None:
    leases = [await requests.acquire(item()) for _ in range(4)]
    with pytest.raises(forebay.RequestAdmissionError) as caught:
        async with requests.attempt(item(queue_wait_timeout_seconds=0)):
            raise AssertionError
    assert caught.value.denied.reason is forebay.RequestDenialReason.QUEUE_TIMEOUT
    for lease in leases:
        await requests.release(lease, forebay.SUCCESS)
    assert counts(await when(connection, is_idle)) == {"success": 4}


async def test_decorated_async_function_holds_a_lease_for_each_call(
    requests: forebay.AdaptiveRequestAdmissionController, connection: ServerConnection
) -> None:
    inside = most = 0

    @requests.limited(CHAT, group=forebay.RequestGroupSpec(key="tenant", weight=2.0))
    async def ask(number: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        return number

    assert await asyncio.gather(*(ask(number) for number in range(40))) == list(range(40))
    assert most <= 4
    assert counts(await when(connection, is_idle)) == {"success": 40}


async def test_decorated_functions_arguments_are_checked_when_decorating(
    requests: forebay.AdaptiveRequestAdmissionController,
) -> None:
    with pytest.raises(forebay.ConfigurationError):
        requests.limited(CHAT, queue_wait_timeout_seconds=-1.0)


async def test_closed_controller_denies_and_takes_nothing_back(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 4)
        lease = await requests.acquire(item())
    with pytest.raises(forebay.RequestAdmissionError) as caught:
        await requests.acquire(item())
    assert caught.value.denied.reason is forebay.RequestDenialReason.SHUTDOWN
    result = await requests.release(lease, forebay.SUCCESS)
    assert (result.released, result.reason) == (False, forebay.ReleaseReason.STALE_LEASE)
    with pytest.raises(forebay.CoordinatorUnavailable, match="connect anew"):
        await requests.register(MODEL, "mine", 4)


async def test_failing_on_lease_lost_does_not_end_the_shards_traffic(redis_url: str) -> None:
    lost: list[str] = []

    def on_lease_lost(lease: forebay.RequestAdmissionLease, why: str) -> None:
        lost.append(lease.lease_id)
        raise ValueError(why)

    config = forebay.RequestAdmissionConfig(max_hold_seconds=0.05)
    async with forebay.connect(redis_url, on_lease_lost=on_lease_lost) as requests:
        await requests.register(MODEL, "mine", 1, config)
        held = await requests.acquire(item())
        next_one = await requests.acquire(item(queue_wait_timeout_seconds=10.0))
        await wait_until(lambda: held.lease_id in lost)
        assert (await requests.release(next_one, forebay.SUCCESS)).reason in {
            forebay.ReleaseReason.RELEASED,
            forebay.ReleaseReason.STALE_LEASE,  # held too long itself, on a slow machine
        }


async def test_connection_is_entered_once(redis_url: str) -> None:
    connection = forebay.connect(redis_url)
    async with connection:
        with pytest.raises(forebay.ConfigurationError, match="entered before"):
            await connection.__aenter__()


async def test_what_the_package_shows_in_its_docstring_runs(
    redis_url: str, connection: ServerConnection
) -> None:
    assert forebay.__doc__ is not None
    blocks = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", forebay.__doc__)
    asynchronous, synchronous = (
        textwrap.dedent(block).replace("redis://localhost", redis_url) for block in blocks
    )
    names: dict[str, Any] = {"forebay": forebay, "call": str.upper}
    wrapped = f"async def main():\n{textwrap.indent(asynchronous, '    ')}\n    return chat\n"
    exec(wrapped, names)
    names["chat"] = await names["main"]()
    await asyncio.to_thread(exec, synchronous, names)
    assert names["answer"] == "A PROMPT"
    assert counts(await when(connection, is_idle, names["chat"])) == {"success": 2}
