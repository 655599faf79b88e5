"""The examples of docs/adopt.md as they stand, in processes of every kind (issue 17).

Run by ``make e2e-processes``, where Celery and its like are installed, apart from our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import forebay
from forebay.coordinator.server_connection import ServerConnection
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from tests.contract.chat_domain import counts, is_idle, item, joined, when
from tests.support import wait_until
from tests.support_answers import stalls
from tests.support_exchange import outcomes_on
from tests.support_raw_provider import Asked, RawProvider, Reply, whole

REPO = Path(__file__).parents[2]
DOCUMENT = (REPO / "docs" / "adopt.md").read_text()
EXAMPLES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCUMENT, re.DOTALL))
AT_ONCE = 8
BIN = Path(sys.executable).parent


NOTEBOOK = """
import os, sys
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(env=dict(os.environ))
client.execute_interactive(
    sys.argv[1], timeout=120, output_hook=lambda message: print(message["content"])
)
client.stop_channels()
manager.shutdown_kernel()
"""
"""A program that runs a cell in a notebook's kernel and prints what the kernel tells."""


class Place:
    """A folder with the examples, and the environment that they are run in."""

    def __init__(self, folder: Path, redis_url: str, provider: MockProviderServer) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.provider = provider
        for name, source in EXAMPLES.items():
            (folder / name).write_text(source)
        self.environment = {
            **os.environ,
            "REDIS_URL": redis_url,
            "BROKER_URL": redis_url.replace("unix://", "redis+socket://"),
            "OPENAI_BASE_URL": provider.base_url,
            "OPENAI_API_KEY": "any",
            "PYTHONPATH": str(folder),
        }

    def run(self, *command: str, name: str = sys.executable) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            [name, *command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @contextlib.contextmanager
    def running(self, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program of the environment until the block ends."""
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [str(BIN / name), *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    async def when_answered(self, calls: int, process: subprocess.Popen[bytes]) -> None:
        """Wait until so many calls were answered well; fails if the program ends."""

        def is_done() -> bool:
            assert process.poll() is None, self.output
            return self.provider.state.counters.ok >= calls

        await wait_until(is_done, timeout=120)

    async def check(self, calls: int) -> None:
        """Check that all calls shared one limit and gave their leases back."""
        counters = self.provider.state.counters
        assert (counters.ok, counters.refused) == (calls, 0), self.folder
        assert counters.max_in_flight <= AT_ONCE
        host = self.provider.root_url.removeprefix("http://")
        resource = forebay.RequestResourceKey(
            provider_model=forebay.ProviderModelKey(provider_name=host, model_id="gpt-5")
        )
        async with await ServerConnection.open(self.redis_url) as connection:
            assert counts(await when(connection, is_idle, resource)) == {"success": calls}


@pytest.fixture
async def place(tmp_path: Path, redis_url: str) -> AsyncIterator[Place]:
    truth = ProviderTruth(concurrency=AT_ONCE, latency_median_seconds=0.05)
    with MockProviderServer(truth) as provider:
        yield Place(tmp_path, redis_url, provider)


def test_every_example_is_run_here() -> None:
    assert DOCUMENT.count("```python") == len(EXAMPLES)
    here = Path(__file__).read_text()
    for name in EXAMPLES.keys() - {"llm.py"}:
        assert name.removesuffix(".py") in here.replace("EXAMPLES", ""), name


async def test_pools_of_every_start_method(place: Place) -> None:
    done = await asyncio.to_thread(place.run, "pool.py")
    methods = ("fork", "spawn", "forkserver")
    assert done.stdout.splitlines() == [f"{method} 12 answers" for method in methods], done.stderr
    await place.check(37)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
async def test_celery(place: Place, pool: str) -> None:
    worker = ("-A", "celery_app", "worker", "--pool", pool, "--concurrency", "3")
    send = "from celery_app import ask_later\nfor n in range(12): ask_later.delay(str(n))"
    with place.running("celery", *worker, "--without-mingle", "--without-gossip") as process:
        sent = await asyncio.to_thread(place.run, "-c", send)
        assert sent.returncode == 0, sent.stderr
        await place.when_answered(12, process)
        await place.check(12)


async def test_rq(place: Place) -> None:
    wait = "\nimport time\nwhile not all(job.is_finished for job in jobs): time.sleep(0.05)"
    with place.running("rq", "worker", "--url", place.redis_url) as process:
        source = EXAMPLES["rq_enqueue.py"] + wait
        done = await asyncio.to_thread(place.run, "-c", source)
        assert done.returncode == 0, done.stderr
        await place.when_answered(4, process)
        await place.check(4)


async def test_dramatiq(place: Place) -> None:
    send = "from actors import ask_later\nfor n in range(12): ask_later.send(str(n))"
    with place.running("dramatiq", "actors", "--processes", "2", "--threads", "2") as process:
        sent = await asyncio.to_thread(place.run, "-c", send)
        assert sent.returncode == 0, sent.stderr
        await place.when_answered(12, process)
        await place.check(12)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def fetched(place: Place, port: int, process: subprocess.Popen[bytes]) -> str:
    """Return what a web application answers, once it does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    found: list[str] = []

    def fetch() -> bool:
        assert process.poll() is None, place.output
        with contextlib.suppress(OSError):
            found.append(opener.open(f"http://127.0.0.1:{port}/", timeout=60).read().decode())
        return bool(found)

    async def is_answered() -> bool:
        return await asyncio.to_thread(fetch)

    await wait_until(is_answered, timeout=120)
    return found[0]


async def test_gunicorn_that_forks_after_a_call(place: Place) -> None:
    port = free_port()
    bind = ("--bind", f"127.0.0.1:{port}")
    with place.running("gunicorn", "--preload", "--workers", "2", *bind, "web:app") as process:
        answers = [await fetched(place, port, process) for _ in range(6)]
        assert all(answers)
        await place.check(7)


async def test_uvicorn_that_reloads(place: Place) -> None:
    port = free_port()
    with place.running("uvicorn", "api:app", "--reload", "--port", str(port)) as process:
        assert await fetched(place, port, process)
        (place.folder / "api.py").write_text(EXAMPLES["api.py"] + "\nRELOADED = True\n")
        await wait_until(lambda: place.output.count("Application startup complete") == 2, 120)
        assert await fetched(place, port, process)
        await place.check(2)


@pytest.mark.parametrize("before", ["", "import nest_asyncio\nnest_asyncio.apply()\n"])
async def test_a_cell_of_a_notebook(place: Place, before: str) -> None:
    done = await asyncio.to_thread(place.run, "-c", NOTEBOOK, before + EXAMPLES["cell.py"])
    assert "'name': 'stdout'" in done.stdout, done.stderr
    assert "Error" not in done.stdout
    await place.check(1)


AWAITED = """
import openai, forebay, os
llm = openai.AsyncOpenAI(
    http_client=forebay.http_client(os.environ["REDIS_URL"], max_parallel_requests=8)
)
messages = [{"role": "user", "content": "a prompt"}]
answer = await llm.chat.completions.create(model="gpt-5", messages=messages)
print(answer.choices[0].finish_reason)
"""


async def test_an_async_client_is_awaited_in_a_cell(place: Place) -> None:
    done = await asyncio.to_thread(place.run, "-c", NOTEBOOK, AWAITED)
    assert "Error" not in done.stdout, done.stdout
    await place.check(1)


@pytest.mark.parametrize(
    ("example", "says"), [("lease.py", "400 Client Error"), ("lease_async.py", "400, message")]
)
async def test_a_lease_around_a_call_of_requests_or_aiohttp(
    place: Place, example: str, says: str
) -> None:
    done = await asyncio.to_thread(place.run, example)
    assert says in done.stderr  # it sends no message, which the provider refuses
    chat = forebay.RequestResourceKey(
        provider_model=forebay.ProviderModelKey(provider_name="mine", model_id="gpt-5")
    )
    async with await ServerConnection.open(place.redis_url) as connection:
        assert counts(await when(connection, is_idle, chat)) == {"provider_failure": 1}


@pytest.mark.parametrize(
    ("library", "patch"),
    [
        ("gevent", "from gevent import monkey; monkey.patch_all()"),
        ("gevent", "from gevent import monkey; monkey.patch_all(thread=False)"),
        ("eventlet", "import eventlet; eventlet.monkey_patch()"),
    ],
)
async def test_green_threads_are_refused_in_a_sentence(
    place: Place, library: str, patch: str
) -> None:
    done = await asyncio.to_thread(place.run, "-c", f"{patch}\nimport llm")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"ConfigurationError: {library} has monkey-patched" in last
    assert "forebay proxy" in last


async def test_celery_on_gevent_is_refused_in_a_sentence(place: Place) -> None:
    worker = ("-A", "celery_app", "worker", "--pool", "gevent")
    done = await asyncio.to_thread(place.run, *worker, name=str(BIN / "celery"))
    assert done.returncode != 0
    assert "gevent has monkey-patched" in done.stderr


async def throttles(_asked: Asked, reply: Reply) -> None:
    told = {"x-amzn-errortype": "ThrottlingException"}
    await reply.send(whole({"message": "Too many requests"}, 429, told))


@pytest.mark.parametrize("outcome", ["rate_limited", "provider_failure", "provider_timeout"])
async def test_a_lease_around_a_call_of_botocore(
    redis_url: str, provider: RawProvider, outcome: str
) -> None:
    from botocore.config import Config
    from botocore.session import get_session

    config = Config(retries={"total_max_attempts": 1}, read_timeout=0.5)
    bedrock = get_session().create_client(
        "bedrock-runtime",
        region_name="eu-central-1",
        endpoint_url=provider.base_url.removesuffix("/v1"),
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=config,
    )
    provider.behaviour = throttles if outcome == "rate_limited" else stalls
    if outcome == "provider_failure":
        provider.stop_listening()

    def call() -> None:
        with joined(redis_url, 8) as fleet, fleet.attempt(item()):
            bedrock.converse(modelId="m", messages=[])

    with pytest.raises(Exception, match=r"Throttling|Could not connect|Read timeout"):
        await asyncio.to_thread(call)
    assert await outcomes_on(redis_url) == {outcome: 1}
