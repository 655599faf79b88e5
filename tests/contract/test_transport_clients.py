"""``forebay.http_client`` and ``forebay.transport`` as a program meets them."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import openai
import pytest

import forebay
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from forebay.transports import HttpResolver, asking_as
from tests.contract.chat_domain import CHAT, MODEL, counts, is_idle, see, when
from tests.support import wait_until
from tests.support_answers import SENTENCE, stalls
from tests.support_drivers import API_KEY, driver
from tests.support_exchange import exchanging, outcomes_on
from tests.support_raw_provider import RawProvider


def named(provider: RawProvider) -> HttpResolver:
    return HttpResolver({provider.host: MODEL.provider_name})


# -- one changed line


async def test_a_url_is_enough_to_join_register_and_leave(
    redis_url: str, provider: RawProvider
) -> None:
    async with openai.AsyncOpenAI(
        api_key=API_KEY,
        base_url=provider.base_url,
        http_client=forebay.http_client(
            redis_url, max_parallel_requests=2, resolve=named(provider)
        ),
    ) as client:
        made = driver("openai-async", client._client, provider.base_url)
        assert await asyncio.gather(*(made.chat() for _ in range(6))) == [SENTENCE] * 6
        async with await ServerConnection.open(redis_url) as connection:
            seen = await when(connection, is_idle)
            assert seen.effective_max == 2
    assert await outcomes_on(redis_url) == {"success": 6}


def test_a_client_for_threads_joins_by_itself(redis_url: str, provider: RawProvider) -> None:
    with forebay.http_client(
        redis_url, max_parallel_requests=2, sync=True, resolve=named(provider)
    ) as client:
        answer = client.post(f"{provider.base_url}/chat/completions", json={"model": "m"})
        assert answer.status_code == 200
    assert counts(see(redis_url, is_idle)) == {"success": 1}


@pytest.fixture
def _collected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Free what a test leaves, of which its log records hold some by their errors' frames."""
    yield
    caplog.get_records("call").clear()
    while gc.collect():
        pass


# What belongs to a loop that has ended is freed by the collector, which warns of it.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("half_read", [False, True])
@pytest.mark.usefixtures("_collected")
def test_each_event_loop_joins_and_connects_anew(
    redis_url: str, provider: RawProvider, library: Any, half_read: bool
) -> None:
    client = forebay.http_client(
        redis_url, max_parallel_requests=2, library=library, resolve=named(provider)
    )
    url = f"{provider.base_url}/chat/completions"
    kept = []

    async def ask() -> int:
        if half_read:
            request = client.build_request("POST", url, json={"model": "m", "stream": True})
            kept.append(await client.send(request, stream=True))
        return (await client.post(url, json={"model": "m"})).status_code

    assert [asyncio.run(ask()) for _ in range(3)] == [200] * 3
    asyncio.run(client.aclose())
    kept.clear()
    gc.collect()
    seen = see(redis_url, is_idle)
    assert counts(seen)["success"] == 3


def _ask_on_loops_that_stop(client: httpx2.AsyncClient, url: str, *, is_closed: bool) -> None:
    async def ask() -> int:
        return (await client.post(url, json={"model": "m"})).status_code

    loops = [asyncio.new_event_loop() for _ in range(3)]
    try:
        for loop in loops:  # not asyncio.run, which ends every task
            assert loop.run_until_complete(ask()) == 200
            if is_closed:
                loop.close()
        asyncio.run(client.aclose())
    finally:
        for loop in loops:
            loop.close()


# As above.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.usefixtures("_collected")
def test_a_loop_that_stopped_with_its_tasks_pending_fails_no_call_of_the_next(
    redis_url: str, provider: RawProvider, is_closed: bool
) -> None:
    _ask_on_loops_that_stop(
        forebay.http_client(redis_url, max_parallel_requests=2, resolve=named(provider)),
        f"{provider.base_url}/chat/completions",
        is_closed=is_closed,
    )
    gc.collect()
    assert counts(see(redis_url, is_idle)) == {"success": 3}


NEVER_CLOSED = """
import sys, forebay
from forebay.transports import HttpResolver
url, base_url, host = sys.argv[1:]
client = forebay.http_client(
    url, max_parallel_requests=2, sync=True, resolve=HttpResolver({host: "p"})
)
client.post(f"{base_url}/chat/completions", json={"model": "m"})
request = client.build_request("POST", f"{base_url}/chat/completions", json={"model": "m"})
kept = client.send(request, stream=True)
"""


async def test_a_client_for_threads_that_is_never_closed_leaves_when_its_program_ends(
    redis_url: str, provider: RawProvider
) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NEVER_CLOSED, redis_url, provider.base_url, provider.host
    )
    assert await program.wait() == 0
    async with await ServerConnection.open(redis_url) as connection:
        pressure = RequestPressureSnapshotProvider(connection)
        shard = await pressure.global_snapshot(MODEL)
        assert (shard.member_count, shard.aggregate_in_flight) == (0, 0)


def _ask_in_a_child(client: httpx2.Client, url: str, told: Any) -> None:
    told.put(client.post(f"{url}/chat/completions", json={"model": "m"}).status_code)
    client.close()


def test_a_forked_child_joins_and_connects_anew(redis_url: str, provider: RawProvider) -> None:
    with forebay.http_client(
        redis_url, max_parallel_requests=2, sync=True, resolve=named(provider)
    ) as client:
        assert client.post(f"{provider.base_url}/chat/completions", json={"model": "m"}).is_success
        fork = multiprocessing.get_context("fork")
        told: Any = fork.SimpleQueue()
        child = fork.Process(target=_ask_in_a_child, args=(client, provider.base_url, told))
        child.start()
        child.join(20)
        assert (child.exitcode, told.get()) == (0, 200)
        assert client.post(f"{provider.base_url}/chat/completions", json={"model": "m"}).is_success
    assert provider.connected == 2  # on one, each could read what was answered to the other
    assert counts(see(redis_url, is_idle)) == {"success": 3}


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_transport_of_ones_own_is_wrapped(
    redis_url: str, provider: RawProvider, library: Any
) -> None:
    seen = []

    def answer(request: Any) -> Any:
        seen.append(request.url.path)
        return library.Response(200, json={"usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    async with forebay.connect(redis_url) as requests:
        wrapped = forebay.transport(
            requests,
            inner=library.MockTransport(answer),
            max_parallel_requests=1,
            resolve=named(provider),
        )
        async with library.AsyncClient(transport=wrapped) as client:
            url = f"{provider.base_url}/chat/completions"
            assert (await client.post(url, json={"model": "m"})).is_success
    assert seen == ["/v1/chat/completions"]
    assert await outcomes_on(redis_url) == {"success": 1}


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_library_of_ones_own_class_is_known(redis_url: str, library: Any) -> None:
    class Own(library.BaseTransport):
        pass

    assert openai.OpenAI  # which renames the modules of what it exports of httpx2
    with forebay.connect(redis_url) as requests:
        wrapped: Any = forebay.transport(requests, inner=Own())
    assert isinstance(wrapped, library.BaseTransport)


async def test_what_calls_no_model_passes_without_a_lease(
    redis_url: str, provider: RawProvider
) -> None:
    async with exchanging("httpx2-async", redis_url, provider) as exchanges:
        await exchanges.driver.client.post(f"{provider.base_url}/files", json={"model": "m"})
    assert exchanges.outcomes == {}


async def test_who_asks_is_named_by_the_block(redis_url: str, provider: RawProvider) -> None:
    provider.behaviour = stalls
    async with exchanging("openai-async", redis_url, provider, cap=1) as exchanges:
        first = asyncio.create_task(exchanges.driver.chat())
        await wait_until(lambda: provider.asked)
        with asking_as(forebay.RequestGroupSpec(key="atlas", weight=3.0)):
            second = asyncio.create_task(exchanges.driver.chat())
        await exchanges.when_waiting(1)
        shard = await exchanges.requests.pressure.global_snapshot(MODEL)
        waiting = shard.domains[CHAT.domain].waiting_groups
        assert [(group.group, group.weight) for group in waiting] == [("atlas", 3.0)]
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
