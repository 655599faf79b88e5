"""``forebay proxy`` as a command: curl calls through it, a signal ends it, no key is logged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.support import wait_until
from tests.support_answers import PROMPT, SENTENCE, answers
from tests.support_drivers import API_KEY
from tests.support_raw_provider import Asked, RawProvider, Reply


@contextmanager
def proxy(redis_url: str, *options: str, debug: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Run the command; yield its URL, and a list that has what it logged once it has ended."""
    logged: list[str] = []
    command = [sys.executable, "-m", "forebay", *(["--debug"] if debug else []), "proxy"]
    process = subprocess.Popen(
        [*command, "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FOREBAY_URL": redis_url},
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("listening on http://"), process.communicate(timeout=10)
        yield first.removeprefix("listening on ").strip(), logged
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=30)
        logged += errors.splitlines()
        assert (process.returncode, said) == (0, "stopped\n"), errors
    finally:
        process.kill()
        process.wait()


def curl(url: str, *arguments: str, body: object = None) -> str:
    """Return what curl prints: headers and body."""
    sends = () if body is None else ("-H", "content-type: application/json", "-d", json.dumps(body))
    done = subprocess.run(
        ["curl", "-sS", "-i", "--noproxy", "*", "--max-time", "30", *arguments, *sends, url],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


async def test_curl_calls_through_two_proxies_of_one_window_and_the_key_is_in_no_log(
    redis_url: str, provider: RawProvider
) -> None:
    options = ("--upstream", f"p={provider.base_url}", "--max-parallel-requests", "1")
    asks = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}
    key = ("-H", f"authorization: Bearer {API_KEY}")

    async def waits(asked: Asked, reply: Reply) -> None:
        await reply.goes_on.wait()
        await answers(asked, reply)

    with (
        proxy(redis_url, *options, debug=True) as (first, logged),
        proxy(redis_url, *options, "--queue-timeout", "0.2") as (second, _),
        ThreadPoolExecutor(1) as caller,
    ):
        whole = curl(f"{first}/v1/chat/completions", *key, body=asks)
        assert whole.startswith("HTTP/1.1 200")
        assert SENTENCE in whole
        streamed = curl(
            f"{second}/t/atlas/v1/chat/completions", "-N", *key, body={**asks, "stream": True}
        )
        assert streamed.rstrip().endswith("data: [DONE]")
        old = curl(f"{first}/v1/chat/completions", "--http1.0", *key, body=asks)
        assert SENTENCE in old
        assert "200 OK" in curl(f"{first}/healthz")

        provider.behaviour = waits
        holding = caller.submit(curl, f"{first}/v1/chat/completions", *key, body=asks)
        await wait_until(lambda: len(provider.asked) == 4)
        denied = curl(f"{second}/v1/chat/completions", *key, body=asks)
        provider.go_on()
        assert denied.startswith("HTTP/1.1 429")
        assert "x-forebay-refusal: queue_timeout" in denied
        assert holding.result().startswith("HTTP/1.1 200")
    assert [asked.headers["authorization"] for asked in provider.asked] == [f"Bearer {API_KEY}"] * 4
    text = "\n".join(logged)
    assert API_KEY not in text
    assert PROMPT not in text


@pytest.mark.parametrize(
    ("options", "warns"),
    [
        (("--host", "0.0.0.0"), True),
        (("--host", "0.0.0.0", "--token", "open sesame"), False),
        ((), False),
    ],
)
def test_a_proxy_that_others_reach_without_a_token_is_warned_of(
    redis_url: str, provider: RawProvider, options: Sequence[str], warns: bool
) -> None:
    with proxy(redis_url, "--upstream", f"p={provider.base_url}", *options) as (_, logged):
        pass
    assert any("proxy_open_to_others" in line for line in logged) is warns
    assert "open sesame" not in "\n".join(logged)
