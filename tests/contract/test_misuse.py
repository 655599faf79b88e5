"""What a program gets that uses request admission wrongly: a typed error that says what to do."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import forebay
from tests.contract.chat_domain import CHAT, MODEL, item, joined


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": None},
        {"url": 6379},
        {"settings": {"ttl_seconds": 2.0}},
        {"classify": 3},
        {"classify": forebay.DefaultClassifier},
        {"on_lease_lost": 3},
    ],
    ids=str,
)
def test_wrong_argument_of_connect_is_refused_on_entering(
    redis_url: str, arguments: dict[str, Any]
) -> None:
    with (
        pytest.raises(forebay.ConfigurationError, match="expected"),
        forebay.connect(**{"url": redis_url, **arguments}),
    ):
        pass


@pytest.mark.parametrize(
    "call",
    [
        lambda requests, _lease: requests.register(MODEL, "mine", 1),
        lambda requests, _lease: requests.acquire(item()),
        lambda requests, _lease: requests.try_acquire(item()),
        lambda requests, lease: requests.release(lease, forebay.SUCCESS),
    ],
    ids=["register", "acquire", "try_acquire", "release"],
)
async def test_calls_from_another_loop_are_refused(
    redis_url: str, call: Callable[[Any, Any], Any]
) -> None:
    async def elsewhere(requests: Any, lease: Any) -> None:
        result = call(requests, lease)
        if inspect.isawaitable(result):
            await result

    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 2)
        lease = await requests.acquire(item())
        with pytest.raises(forebay.ConfigurationError, match="off the event loop"):
            await asyncio.to_thread(lambda: asyncio.run(elsewhere(requests, lease)))
        assert (await requests.release(lease, forebay.SUCCESS)).released


async def test_attempt_takes_an_item_only(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        with pytest.raises(forebay.ConfigurationError, match="expected RequestAdmissionItem"):
            requests.attempt(CHAT)  # type: ignore[arg-type]


def test_outcome_is_set_inside_the_block_only(redis_url: str) -> None:
    with joined(redis_url, 1) as requests:
        attempt = requests.attempt(item())
        with pytest.raises(forebay.ConfigurationError, match="outside its block"):
            attempt.rate_limited()
        with attempt:
            pass
        with pytest.raises(forebay.ConfigurationError, match="outside its block"):
            attempt.outcome = forebay.SUCCESS


def test_blocking_connection_decorates_no_async_function(redis_url: str) -> None:
    async def ask() -> None: ...

    with joined(redis_url, 1) as requests:
        with pytest.raises(forebay.ConfigurationError, match="async with"):
            requests.limited(CHAT)(ask)
        with pytest.raises(forebay.ConfigurationError, match="expected a function"):
            requests.limited(CHAT)("ask")  # type: ignore[arg-type]


def test_release_after_the_block_says_that_the_lease_was_given_back(redis_url: str) -> None:
    with joined(redis_url, 1) as requests:
        lease = requests.acquire(item())
    result = requests.release(lease, forebay.SUCCESS)
    assert (result.released, result.reason) == (False, forebay.ReleaseReason.STALE_LEASE)
