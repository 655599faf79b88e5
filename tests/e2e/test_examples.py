"""The examples as they stand, two processes of each, against a provider that takes 8 at once.

Two copies want 40 calls at once; a provider that refuses the ninth refuses none, so the copies
share one limit. What they print is what their READMEs say.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.coordinator.server_connection import ServerConnection
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from tests.contract.chat_domain import counts, is_idle, when

EXAMPLES = Path(__file__).parents[2] / "examples"
AT_ONCE = 8
MAIN = ["main.py"]
ARQ = ["-m", "arq", "app.WorkerSettings"]


@pytest.fixture
def provider() -> Iterator[MockProviderServer]:
    truth = ProviderTruth(concurrency=AT_ONCE, latency_median_seconds=0.05)
    with MockProviderServer(truth) as server:
        yield server


@contextlib.contextmanager
def started(
    example: str, arguments: list[str], redis_url: str, provider: MockProviderServer
) -> Iterator[subprocess.Popen[str]]:
    """Run a program of an example, with the environment that its README sets."""
    env = {
        **os.environ,
        "REDIS_URL": redis_url,
        "OPENAI_BASE_URL": provider.base_url,
        "OPENAI_API_KEY": "any",
        "ANTHROPIC_BASE_URL": provider.root_url,
        "ANTHROPIC_API_KEY": "any",
        "PYTHONPATH": os.pathsep.join(path for path in (str(EXAMPLES.parent), *sys.path) if path),
    }
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=EXAMPLES / example,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def printed(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def assert_nobody_was_refused(provider: MockProviderServer, calls: int) -> None:
    counters = provider.state.counters
    assert (counters.ok, counters.refused) == (calls, 0)
    assert 1 < counters.max_in_flight <= AT_ONCE


async def assert_no_lease_is_left(redis_url: str, provider: MockProviderServer, calls: int) -> None:
    host = provider.root_url.removeprefix("http://")
    resource = RequestResourceKey(
        provider_model=ProviderModelKey(provider_name=host, model_id="mock-chat")
    )
    async with await ServerConnection.open(redis_url) as connection:
        assert counts(await when(connection, is_idle, resource)) == {"success": calls}


@pytest.mark.parametrize("example", ["openai_sdk", "anthropic_sdk"])
async def test_copies_of_a_program_on_an_sdk_share_one_limit(
    redis_url: str, provider: MockProviderServer, example: str
) -> None:
    with (
        started(example, MAIN, redis_url, provider) as one,
        started(example, MAIN, redis_url, provider) as two,
    ):
        assert [printed(one), printed(two)] == ["40 answers", "40 answers"]
    assert_nobody_was_refused(provider, 80)
    await assert_no_lease_is_left(redis_url, provider, 80)


async def test_workers_of_an_arq_application_share_one_limit(
    redis_url: str, provider: MockProviderServer
) -> None:
    with (
        started("plain_arq", ARQ, redis_url, provider),
        started("plain_arq", ARQ, redis_url, provider),
        started("plain_arq", ["submit.py"], redis_url, provider) as submit,
    ):
        assert printed(submit) == "40 results"
    assert_nobody_was_refused(provider, 40)
    await assert_no_lease_is_left(redis_url, provider, 40)


async def test_a_late_tenant_of_an_arq_application_waits_for_no_flood(
    redis_url: str, provider: MockProviderServer
) -> None:
    worker = ["-m", "forebay", "worker", "app.WorkerSettings", "--pool", "app"]
    worker += ["--url", redis_url, "--log-level", "warning"]
    with (
        started("fair_arq", worker, redis_url, provider),
        started("fair_arq", ["submit.py"], redis_url, provider) as submit,
    ):
        told = re.fullmatch(
            r"late is done, all 10 jobs, after (\d+) of flood's 200", printed(submit)
        )
    assert told is not None
    assert int(told[1]) < 100


@pytest.mark.parametrize("example", ["openai_sdk", "anthropic_sdk", "plain_arq"])
def test_an_examples_readme_shows_its_changed_line_as_it_stands(example: str) -> None:
    readme = (EXAMPLES / example / "README.md").read_text()
    programs = "".join(path.read_text() for path in (EXAMPLES / example).glob("*.py"))
    (shown,) = [line.strip() for line in readme.splitlines() if "forebay.http_client(" in line]
    assert shown in programs
