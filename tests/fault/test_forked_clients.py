"""A client that its parent has used works in a forked child, and does the parent's no harm."""

from __future__ import annotations

import asyncio
import os
import sys
from types import SimpleNamespace

import pytest

from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from forebay.transports import blocking_admission
from tests.contract.chat_domain import MODEL
from tests.support_answers import SENTENCE
from tests.support_exchange import outcomes_on
from tests.support_raw_provider import RawProvider

PROGRAM = """
import asyncio, multiprocessing, sys
import forebay

url, base_url, kind = sys.argv[1:]
host = base_url.removeprefix("http://").removesuffix("/v1")
client = forebay.http_client(
    url,
    sync=kind == "sync",
    max_parallel_requests=8,
    resolve=forebay.HttpResolver({host: "p"}),
)
asks = {"url": f"{base_url}/chat/completions", "json": {"model": "m"}}

async def call():
    response = client.post(**asks)
    if kind != "sync":
        response = await response
    return response.json()["choices"][0]["message"]["content"]

def blocking():
    return client.post(**asks).json()["choices"][0]["message"]["content"]

def child(answers):
    answers.put(blocking() if kind == "sync" else asyncio.run(call()))

def children():
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    forked = [context.Process(target=child, args=(answers,)) for _ in range(2)]
    for one in forked:
        one.start()
    for one in forked:
        one.join()
        assert one.exitcode == 0, one.exitcode
        print(answers.get())

async def within_a_loop():
    print(await call())
    children()
    print(await call())
    await client.aclose()

async def once():
    print(await call())

if kind == "sync":
    print(blocking())
    children()
    print(blocking())
    client.close()
elif kind == "async":
    asyncio.run(within_a_loop())
else:
    asyncio.run(once())
    children()
    asyncio.run(once())
"""


@pytest.mark.parametrize("kind", ["sync", "async", "async, after its loop"])
async def test_a_client_works_before_and_after_a_fork_in_parent_and_children(
    redis_url: str, provider: RawProvider, kind: str
) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, redis_url, provider.base_url, kind),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    out, errors = await program.communicate()
    said = out.decode().splitlines()
    assert (program.returncode, said) == (0, [SENTENCE] * 4), errors.decode()
    assert await outcomes_on(redis_url) == {"success": 4}


POOLS = """
import concurrent.futures, multiprocessing, sys
import forebay

url, base_url = sys.argv[1:]
host = base_url.removeprefix("http://").removesuffix("/v1")
client = forebay.http_client(
    url, sync=True, max_parallel_requests=8, resolve=forebay.HttpResolver({host: "p"})
)

def call(_number=0):
    response = client.post(f"{base_url}/chat/completions", json={"model": "m"})
    return response.json()["choices"][0]["message"]["content"]

context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    print(*pool.map(call, range(2)), sep="\\n", flush=True)
    pool.close()
    pool.join()
with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
    print(*executor.map(call, range(2)), sep="\\n", flush=True)
child = context.Process(target=lambda: print(call(), flush=True))
child.start()
child.join()
"""


async def test_processes_of_pools_have_left_the_fleet_when_they_have_ended(
    redis_url: str, provider: RawProvider
) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", POOLS, redis_url, provider.base_url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    out, errors = await program.communicate()
    said = out.decode().splitlines()
    assert (program.returncode, said) == (0, [SENTENCE] * 5), errors.decode()
    async with await ServerConnection.open(redis_url) as connection:
        seen = await RequestPressureSnapshotProvider(connection).global_snapshot(MODEL)
    assert seen.member_count == 0  # a fork runs no exit handlers: else they stay for a TTL


def test_a_pool_of_billiard_is_left_as_one_of_multiprocessing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered: list[tuple[object, ...]] = []

    def finalize(*arguments: object, exitpriority: int) -> None:
        registered.append((*arguments, exitpriority))

    for name in ("multiprocessing.util", "billiard.util"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(Finalize=finalize))
    blocking_admission._leave_with_pools()
    assert registered == [(None, blocking_admission._leave_all, 0)] * 2
