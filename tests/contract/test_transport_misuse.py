"""What a program gets that makes a client or a transport wrongly.

Rules: design 03, *Errors people see*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest

import forebay
from forebay.transports import HttpResolver
from tests.support_raw_provider import RawProvider


def made(**fields: Any) -> Callable[[str], object]:
    return lambda url: forebay.http_client(url, **{"max_parallel_requests": 1, **fields})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (forebay.http_client, "max_parallel_requests"),
        (lambda url: forebay.http_client(7, max_parallel_requests=1), "expected what"),
        (lambda url: forebay.http_client(url, max_parallel_requests=0), "whole number"),
        (
            lambda url: forebay.http_client(url, max_parallel_requests=1, library="aiohttp"),
            "library",
        ),
        (
            lambda url: forebay.http_client(
                url, max_parallel_requests=1, client_options={"limits": None}
            ),
            "limits",
        ),
        (
            lambda url: forebay.http_client(
                url, max_parallel_requests=1, client_options={"colour": 1}
            ),
            "client_options",
        ),
        (
            lambda url: forebay.http_client(
                url,
                max_parallel_requests=1,
                inner=httpx2.AsyncHTTPTransport(),
                client_options={"verify": False},
            ),
            "verify",
        ),
        (
            lambda url: forebay.http_client(url, max_parallel_requests=1, release_at="later"),
            "release_at",
        ),
        (lambda url: forebay.http_client(url, max_parallel_requests=1, resolve=7), "resolve"),
        (forebay.transport, "forebay.connect"),
        (made(classifier=forebay.DefaultClassifier), "^classifier is"),
        (made(classifier=7), "classify_response"),
        (made(estimator=len), "estimate"),
        (made(resolve=HttpResolver), r"resolve is the class HttpResolver, .*HttpResolver\(\)"),
        (made(queue_wait_timeout_seconds="1"), "queue_wait_timeout_seconds"),
        (made(queue_wait_timeout_seconds=-1), "queue_wait_timeout_seconds"),
        (made(release_at={"p/m": "end"}), "RequestResourceKey"),
        (made(settings={"ttl_seconds": 5}), "expected MemberSettings"),
        (made(config={"quotas": None}), "expected RequestAdmissionConfig"),
        (made(client_options="timeout"), "client_options"),
        (made(sync="yes"), "expected bool"),
        (made(sync=True, inner=httpx2.AsyncHTTPTransport()), r"expected a httpx2\.BaseTransport"),
        (made(inner=httpx2.HTTPTransport()), r"expected a httpx2\.AsyncBaseTransport"),
        (made(inner=httpx.AsyncHTTPTransport()), "set library"),
        (lambda url: forebay.http_client("http://x", max_parallel_requests=1), "redis://"),
        # keywords that are none
        (made(resolv=HttpResolver()), "'resolv', expected one of .*; write resolve, if"),
        (made(max_paralel_requests=1), "write max_parallel_requests"),
        (made(timeout=3), r"'timeout', .* client_options={'timeout': \.\.\.}"),
        (made(quotas=1), r"RequestAdmissionConfig\(quotas=\.\.\.\)"),
        (made(tokens_per_day=1), r"RequestQuotas\(tokens_per_day=\.\.\.\)"),
        (made(ttl_seconds=1), r"MemberSettings\(ttl_seconds=\.\.\.\)"),
        (made(zebra=1), "leave it out"),
        (
            lambda url: forebay.transport(url, settings=None),
            "use forebay.http_client",
        ),
        # what is not entered yet
        (lambda url: forebay.transport(forebay.connect(url)), "async with forebay.connect"),
        (lambda url: forebay.http_client(forebay.connect(url)), "async with forebay.connect"),
    ],
)
def test_a_wrong_argument_is_refused_where_it_is_given(make: Any, says: str) -> None:
    with pytest.raises(forebay.ConfigurationError, match=says):
        make("redis://127.0.0.1:1")


async def test_what_is_connected_already_takes_no_settings(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        with pytest.raises(forebay.ConfigurationError, match=r"forebay\.connect\(url, settings="):
            forebay.http_client(requests, settings=forebay.MemberSettings())


async def test_a_client_is_of_its_controllers_kind(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        with pytest.raises(forebay.ConfigurationError, match=r"sync is True .* expected False"):
            forebay.http_client(requests, sync=True)
        wrapped: Any = forebay.transport(requests)
        with pytest.raises(forebay.ConfigurationError, match=r"Client, expected .* AsyncClient"):
            await asyncio.to_thread(httpx2.Client(transport=wrapped).get, "http://127.0.0.1:1")
        with pytest.raises(forebay.ConfigurationError, match="make that, or connect with `with"):
            httpx2.Client(transport=wrapped).__enter__()


def test_a_client_for_threads_is_of_its_controllers_kind(redis_url: str) -> None:
    with forebay.connect(redis_url) as requests:
        with pytest.raises(forebay.ConfigurationError, match=r"sync is False .* expected True"):
            forebay.http_client(requests, sync=False)
        wrapped: Any = forebay.transport(requests)
        with pytest.raises(forebay.ConfigurationError, match=r"AsyncClient, expected .* Client"):
            asyncio.run(httpx2.AsyncClient(transport=wrapped).get("http://127.0.0.1:1"))
        with pytest.raises(forebay.ConfigurationError, match="connect with `async with"):
            asyncio.run(httpx2.AsyncClient(transport=wrapped).__aenter__())


async def test_a_server_that_is_away_is_a_typed_error(provider: RawProvider) -> None:
    settings = forebay.MemberSettings(call_timeout_seconds=0.2)
    async with forebay.http_client(
        "redis://127.0.0.1:1", max_parallel_requests=1, settings=settings
    ) as client:
        with pytest.raises(forebay.CoordinatorUnavailable, match=r"127\.0\.0\.1:1"):
            await client.post(f"{provider.base_url}/chat/completions", json={"model": "m"})
    assert provider.asked == []
