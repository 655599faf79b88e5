"""No secret, prompt or completion in a log, event, key, message or repr.

Rules: design 01, *Invariants* 9.

Everything that the server is told is watched while SDKs and the executor call a provider in every
way that ends differently; what they log and what their objects show is searched as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

import forebay
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.workers.executor import ModelRequestExecutor
from forebay.workers.model_request import ModelRequest
from forebay.workers.providers.openai_client import OpenAICompatibleClient
from tests.contract.chat_domain import CHAT
from tests.support import wait_until
from tests.support_answers import (
    PROMPT,
    answers,
    completion,
    events,
    refuses,
    stalls,
    tells_overload_within,
)
from tests.support_drivers import API_KEY
from tests.support_exchange import Exchanges, exchanging
from tests.support_raw_provider import Asked, RawProvider, Reply, begun_stream, chunk, whole

COMPLETION = "a completion that nobody else may see"
SECRETS = (API_KEY, PROMPT, COMPLETION)
OURS = ("forebay",)
DRIVERS = ("openai-async", "anthropic-async", "openai-sync", "httpx-async")


def told(text: str) -> list[str]:
    """Return the secrets that a text holds."""
    return [secret for secret in SECRETS if secret in text]


def shown() -> str:
    """Return what every object of ours shows of itself."""
    reprs = []
    for found in gc.get_objects():
        module = getattr(type(found), "__module__", None)
        if isinstance(module, str) and module.partition(".")[0] in OURS:
            reprs.append(repr(found))
    assert len(reprs) > 20
    return "\n".join(reprs)


LAST_COMMAND = "watching-ends-here-5e1f"
"""Echoed as the last; in no script's text."""


@contextlib.contextmanager
def watching(url: str) -> Iterator[list[str]]:
    """Collect every command that the server runs, those of scripts too."""
    seen: list[str] = []
    begun = threading.Event()

    def watch() -> None:
        with open_sync(parse_url(url)) as client, client.monitor() as monitor:
            begun.set()
            while True:
                command = monitor.next_command()["command"]
                if LAST_COMMAND in command:
                    return
                seen.append(command)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    assert begun.wait(10)
    try:
        yield seen
    finally:
        with open_sync(parse_url(url)) as client:
            client.echo(LAST_COMMAND)
        thread.join(10)
        assert not thread.is_alive()


async def says(asked: Asked, reply: Reply) -> None:
    await reply.send(whole(completion(asked, COMPLETION)))


async def tells_overload(asked: Asked, reply: Reply) -> None:
    parts = [*events(asked)[:4], tells_overload_within(asked), b""]
    await reply.send(begun_stream() + b"".join(map(chunk, parts)))


async def breaks(_asked: Asked, reply: Reply) -> None:
    reply.writer.transport.abort()


@contextlib.asynccontextmanager
async def failing() -> AsyncIterator[None]:
    """Run a block that must raise; what it raises may tell what its caller knows, we may not."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each SDK has its own
        yield
    error: BaseException | None = raised.value
    while error is not None:
        if type(error).__module__.partition(".")[0] in OURS:
            assert told(f"{error} {error!r} {vars(error)}") == []
        error = error.__cause__ or error.__context__


async def call_in_every_way(exchanges: Exchanges) -> None:
    provider, driver = exchanges.provider, exchanges.driver
    provider.behaviour = says
    assert await driver.chat() == COMPLETION
    for behaviour in (
        refuses(retry_after_ms="1"),
        refuses(status=500, code="server_error"),
        refuses(status=400, code=PROMPT),
        breaks,
    ):
        provider.behaviour = behaviour
        async with failing():
            await driver.chat()
    provider.behaviour = answers
    await (await driver.stream()).rest()
    provider.behaviour = tells_overload
    with contextlib.suppress(Exception):
        await (await driver.stream()).rest()
    provider.behaviour = stalls
    async with failing():
        await driver.chat(timeout=0.05)
    if not driver.is_sync:
        call = asyncio.create_task(driver.chat())
        before = len(provider.asked)
        await wait_until(lambda: len(provider.asked) > before)
        assert told(shown()) == []
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def execute_in_every_way(exchanges: Exchanges) -> None:
    provider = exchanges.provider
    messages: list[Any] = [{"role": "user", "content": PROMPT}]
    executor = ModelRequestExecutor(exchanges.requests)
    async with OpenAICompatibleClient(provider.base_url, SecretStr(API_KEY)) as client:
        request = ModelRequest(
            resource=CHAT, call=lambda: client.chat("m", messages), max_attempts=1
        )
        provider.behaviour = says
        answer = await executor.execute(request)
        assert answer.text == COMPLETION
        assert told(repr((answer, request, client, executor))) == []
        for behaviour in (refuses(), refuses(status=400, code=PROMPT), breaks):
            provider.behaviour = behaviour
            async with failing():
                await executor.execute(request)
    await executor.aclose()


@pytest.mark.parametrize("name", ["httpx-async", "httpx2-async"])
async def test_a_key_in_a_query_is_told_to_nobody_in_either_form(
    redis_url: str,
    name: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG", logger="forebay")
    forms = ("sk/secret+of the=query", "sk%2Fsecret%2Bof%20the%3Dquery", "sk%2Fsecret%2Bof+the")
    seen: list[str] = []
    with watching(redis_url) as commands, RawProvider(answers) as provider:
        async with exchanging(name, redis_url, provider) as exchanges:
            client = exchanges.driver.client
            for behaviour in (answers, refuses(status=500, code="server_error"), breaks, stalls):
                provider.behaviour = behaviour
                with contextlib.suppress(Exception):
                    await client.post(
                        f"{provider.base_url}/chat/completions",
                        params={"key": forms[0]},
                        json={"model": "m"},
                        timeout=0.2,
                    )
            seen.append(shown())
        assert forms[1] in provider.asked[0].path or forms[2] in provider.asked[0].path
    written = capfd.readouterr()
    seen += [*commands, caplog.text, written.out, written.err]
    assert [form for form in forms if form in "\n".join(seen)] == []
    assert exchanges.outcomes["success"] == 1


@pytest.mark.parametrize("name", DRIVERS)
async def test_no_secret_is_told_to_anybody(
    redis_url: str,
    name: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG", logger="forebay")
    tuning = forebay.RequestAdmissionTuningConfig(cooldown_seconds=0.01)
    config = forebay.RequestAdmissionConfig(
        tuning=tuning, quotas=forebay.RequestQuotas(tokens_per_minute=1_000_000)
    )
    with watching(redis_url) as commands, RawProvider(answers) as provider:
        async with exchanging(name, redis_url, provider, config=config) as exchanges:
            await call_in_every_way(exchanges)
            if not exchanges.driver.is_sync:
                await execute_in_every_way(exchanges)
            assert told(shown()) == []
        assert exchanges.outcomes["success"] >= 2
        assert API_KEY in str(provider.asked[0].headers)
        assert PROMPT.encode() in provider.asked[0].body
    assert any("rate_limited" in command for command in commands)
    assert told("\n".join(commands)) == []
    assert told(caplog.text) == []
    written = capfd.readouterr()
    assert told(written.out + written.err) == []
