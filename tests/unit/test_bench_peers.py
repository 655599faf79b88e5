"""The peers of the bench: what each does is counted, never timed."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import redis

from bench.peers import bullmq_jobs, job_library, registry
from bench.peers.bullmq_jobs import Bullmq, NodeProcess
from bench.peers.job_library import JobLibrary
from bench.peers.limiter import Limiter, LimiterPeer, Setting
from bench.peers.registry import HAND_OFFS, JOBS, PAIRS, installed, missing, versions
from bench.peers.self_limiters import SelfLimiters
from bench.peers.taskiq_jobs import Taskiq
from forebay.contracts.identity import ProviderModelKey
from tests.support import wait_until

CAP = 2
CALLERS = 6
OURS = {"forebay": HAND_OFFS[0], "semaphore": HAND_OFFS[1], "fifo": HAND_OFFS[2]}
NEEDS_NO_EXTRA = {"forebay": JOBS[0], "arq": JOBS[1]}


def setting(url: str) -> Setting:
    model = ProviderModelKey(provider_name="bench", model_id="peers")
    return Setting(url=url, cap=CAP, callers=CALLERS, provider_model=model)


async def most_holders(limiter: Limiter) -> int:
    """Let each caller take a slot and give it back; return the most that held one at once."""
    held = most = 0

    async def hold() -> None:
        nonlocal held, most
        token = await limiter.acquire()
        held += 1
        most = max(most, held)
        await asyncio.sleep(0)
        held -= 1
        await limiter.release(token)

    await asyncio.gather(*(hold() for _ in range(CALLERS)))
    return most


# -- limiters


@pytest.mark.parametrize("peer", OURS.values(), ids=OURS)
async def test_a_limiter_grants_each_caller_and_no_more_than_its_cap_at_once(
    peer: LimiterPeer, redis_url: str
) -> None:
    async with asyncio.timeout(60), peer.open(setting(redis_url)) as limiter:
        assert await most_holders(limiter) <= CAP


async def test_a_raw_pair_takes_a_slot_and_gives_it_back(redis_url: str) -> None:
    async with PAIRS[1].open(setting(redis_url)) as limiter:
        held = [await limiter.acquire() for _ in range(CAP)]
        with pytest.raises(RuntimeError, match="all 2 raw slots are taken"):
            await limiter.acquire()
        await limiter.release(held[0])
        await limiter.acquire()


class FakeSemaphore:
    """What self-limiters promises, within one process."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self._semaphore = asyncio.Semaphore(arguments["capacity"])

    async def __aenter__(self) -> None:
        await self._semaphore.acquire()

    async def __aexit__(self, *_error: object) -> None:
        self._semaphore.release()


async def test_each_caller_of_self_limiters_has_a_connection_and_the_cap_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[FakeSemaphore] = []
    package = ModuleType("self_limiters")
    package.__dict__["Semaphore"] = lambda **said: made.append(FakeSemaphore(**said)) or made[-1]
    monkeypatch.setitem(sys.modules, "self_limiters", package)
    async with SelfLimiters().open(setting("redis://nowhere")) as limiter:
        assert await most_holders(limiter) == CAP
    assert made[0].arguments["connection_pool_size"] == CALLERS
    assert made[0].arguments["redis_url"] == "redis://nowhere"


# -- job libraries


async def run_three_jobs(library: JobLibrary, url: str, client: Any) -> list[float]:
    """Submit three jobs, run them, and return the instants before the submits and at the starts."""
    submitter = await library.submitter(url)
    submitted_at = [await submitter.submit(number) for number in range(3)]
    running = await library.start(url)

    async def are_all_done() -> bool:
        results = library.results(client)
        return await running.count() >= 3 and (results is None or results >= 3)

    await wait_until(are_all_done, timeout=60)
    await submitter.close()
    return submitted_at + await running.stop()


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # arq's
@pytest.mark.parametrize("library", NEEDS_NO_EXTRA.values(), ids=NEEDS_NO_EXTRA)
async def test_a_library_starts_each_job_once_and_stores_its_result(
    library: JobLibrary, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        instants = await run_three_jobs(library, redis_url, client)
        assert library.results(client) == 3
    assert len(instants) == 6
    assert max(instants[:3]) <= min(instants[3:])


class FakeBroker:
    """A broker of taskiq that keeps its queue in memory."""

    queued: int = 0

    def __init__(self, url: str) -> None:
        self.url = url
        self.backend: Any = None

    def with_result_backend(self, backend: Any) -> FakeBroker:
        self.backend = backend
        return self

    def register_task(self, task: Any, task_name: str) -> None:
        self.tasks = {task_name: task}

    def find_task(self, _name: str) -> Any:
        async def kiq() -> None:
            type(self).queued += 1

        return SimpleNamespace(kiq=kiq)

    async def startup(self) -> None:
        return None

    async def shutdown(self) -> None:
        return None


@pytest.mark.parametrize("stores_results", [True, False])
async def test_taskiq_stores_results_only_with_its_backend(
    stores_results: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def receive(broker: FakeBroker, *, max_async_tasks: int) -> None:
        assert max_async_tasks == job_library.CONCURRENCY
        assert (broker.backend is not None) is stores_results
        while FakeBroker.queued:
            FakeBroker.queued -= 1
            await broker.tasks["noop"]()
        await asyncio.Event().wait()

    package, api = ModuleType("taskiq_redis"), ModuleType("taskiq.api")
    package.__dict__["ListQueueBroker"] = FakeBroker
    package.__dict__["RedisAsyncResultBackend"] = lambda *_said, **_named: object()
    api.__dict__["run_receiver_task"] = receive
    monkeypatch.setitem(sys.modules, "taskiq_redis", package)
    monkeypatch.setitem(sys.modules, "taskiq.api", api)
    monkeypatch.setattr(FakeBroker, "queued", 0)
    stored = SimpleNamespace(scan_iter=lambda pattern, count: [pattern] * 3)
    library = Taskiq(stores_results=stores_results)
    assert len(await run_three_jobs(library, "redis://nowhere", stored)) == 6
    assert library.results(stored) == (3 if stores_results else None)


# -- bullmq: a process that answers lines with lines

ANSWERS = """
import sys
print('"ready"', flush=True)
for line in sys.stdin:
    order = line.strip()
    print({"submit": 1.5, "count": 2, "stop": [2.5, 3.5]}[order], flush=True)
    if order == "stop":
        break
"""


async def test_orders_to_node_are_answered_one_by_one_and_the_last_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = NodeProcess.start

    async def start_python(*command: str) -> NodeProcess:
        assert command[0] == "node"
        return await start(sys.executable, "-c", ANSWERS)

    monkeypatch.setattr(NodeProcess, "start", start_python)
    submitter = await Bullmq().submitter("unix:///nowhere")
    assert await asyncio.gather(submitter.submit(0), submitter.submit(1)) == [1.5, 1.5]
    await submitter.close()
    running = await Bullmq().start("unix:///nowhere")
    assert await running.count() == 2
    assert await running.stop() == [2.5, 3.5]


async def test_a_process_of_node_that_ends_instead_of_answering_is_an_error() -> None:
    node = await NodeProcess.start(sys.executable, "-c", "print(1)")
    with pytest.raises(RuntimeError, match="node ended instead of answering"):
        await node.ask("count")
    with pytest.raises(RuntimeError, match="node ended instead of answering"):
        await node.ask("count")


# -- which are here


def test_a_peer_that_is_missing_is_left_out_and_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry.Saq, "version", lambda _self: None)
    monkeypatch.setattr(bullmq_jobs.shutil, "which", lambda _program: None)
    assert {"saq", "bullmq"}.isdisjoint(installed(JOBS))
    assert {"forebay", "arq"} <= set(installed(JOBS))
    sentences = " ".join(missing(JOBS))
    assert (
        "saq is not installed, so nothing is measured beside it; run make bench-peers" in sentences
    )
    assert "bullmq is not installed" in sentences
    assert "with node and npm on PATH" in sentences
    found = versions()
    assert found["saq"] == found["bullmq"] == "not installed"
    assert found["arq"].startswith("0.28")
    assert "forebay" not in found
