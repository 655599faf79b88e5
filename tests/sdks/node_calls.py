"""OpenAI's and Anthropic's SDKs of Node through ``forebay proxy``.

Run by ``make e2e-node``, which installs them with npm.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support_answers import SENTENCE, WORDS, stalls, stalls_midway
from tests.support_drivers import API_KEY
from tests.support_proxying import Proxying, proxying
from tests.support_raw_provider import RawProvider

PROGRAM = Path(__file__).with_name("calls.cjs")
MODULES = Path(__file__).parents[2] / ".venv" / "apart" / "node" / "node_modules"


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if shutil.which("node") is None:
        pytest.fail(
            "node is not on PATH, expected 18 or newer; on Debian: apt-get install nodejs npm"
        )
    if not (MODULES / "openai").is_dir():
        pytest.fail(f"no openai in {MODULES}, expected what `make e2e-node` installs; run that")


async def told(proxy: Proxying, scenario: str) -> Any:
    """Return what the program prints of a scenario."""
    program = await asyncio.create_subprocess_exec(
        *("node", str(PROGRAM), proxy.url, API_KEY, scenario),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(MODULES), "NO_PROXY": "*"},
    )
    out, errors = await program.communicate()
    assert program.returncode == 0, errors.decode()
    return json.loads(out)


async def test_whole_answers_of_both_sdks(redis_url: str, provider: RawProvider) -> None:
    async with proxying(redis_url, provider) as proxy:
        assert await told(proxy, "whole") == [SENTENCE, SENTENCE]
        assert await proxy.ended() == {"success": 2}
    keys = [
        asked.headers.get("x-api-key", asked.headers.get("authorization"))
        for asked in provider.asked
    ]
    assert keys[0] == f"Bearer {API_KEY}"
    assert keys[1].endswith(API_KEY)


async def test_a_stream(redis_url: str, provider: RawProvider) -> None:
    async with proxying(redis_url, provider) as proxy:
        assert await told(proxy, "stream") == SENTENCE
        assert await proxy.ended() == {"success": 1}


async def test_a_stream_that_is_aborted_gives_its_lease_back(
    redis_url: str, provider: RawProvider
) -> None:
    provider.behaviour = stalls_midway
    async with proxying(redis_url, provider) as proxy:
        assert await told(proxy, "abort") == WORDS[0]
        assert await proxy.ended() == {"local_cancelled": 1}
    assert provider.hung_up == 1


async def test_a_full_queue_is_a_rate_limit_for_both(redis_url: str, provider: RawProvider) -> None:
    provider.behaviour = stalls
    async with proxying(redis_url, provider, max_parallel_requests=1, queue_seconds=0.05) as proxy:
        await proxy.ask()
        await proxy.when(lambda seen: seen.in_flight_count == 1)
        found = await told(proxy, "refused")
    assert found == {name: ["RateLimitError", 429, "1"] for name in ("openai", "anthropic")}
