"""SDKs and bare clients that call a `RawProvider` through leases, one like the other."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

import forebay
from forebay.transports import HttpResolver
from tests.contract.chat_domain import MODEL
from tests.support_answers import PROMPT
from tests.support_raw_provider import RawProvider

API_KEY = "sk-secret-of-the-test"
CALLERS = {
    name: importlib.import_module(name)
    for name in ("openai", "anthropic", "httpx2", "httpx")
    if importlib.util.find_spec(name)
}
"""The SDKs and HTTP libraries that are here: all four, but where one SDK is installed apart."""

Read = Callable[[], Awaitable[str]]


@dataclass(kw_only=True)
class Streamed:
    """A stream that a driver opened; the stream itself is in ``kept`` alone, to be dropped."""

    kept: list[Any]
    rest: Read
    one: Read
    close: Callable[[], Awaitable[None]]

    def drop(self) -> None:
        """Forget it without closing it."""
        self.kept.clear()


@dataclass(kw_only=True)
class Driver:
    """One way to call: an SDK or a bare client, on the event loop or in threads."""

    name: str
    call: Callable[..., Any]
    client: Any

    @property
    def is_sync(self) -> bool:
        return self.name.endswith("-sync")

    async def do(self, function: Callable[[], Any]) -> Any:
        """Run one step where this driver runs: on the loop, or in a thread."""
        if self.is_sync:
            return await asyncio.to_thread(function)
        return await function()

    async def chat(self, text: str = PROMPT, **fields: Any) -> str:
        """Ask for a whole answer and return its text."""
        answer = await self.do(lambda: self.call(text, stream=False, **fields))
        if self.name.startswith("openai"):
            return answer.choices[0].message.content
        if self.name.startswith("anthropic"):
            return answer.content[0].text
        answer.raise_for_status()
        return answer.json()["choices"][0]["message"]["content"]

    async def stream(self, text: str = PROMPT) -> Streamed:
        """Ask for a stream, and begin to read nothing of it."""
        kept = [await self.do(lambda: self.call(text, stream=True))]
        is_bare = self.name.startswith("httpx")
        opened = kept[0]
        if is_bare:
            opened.raise_for_status()
            kept.append(opened.iter_bytes() if self.is_sync else opened.aiter_bytes())
        else:
            kept.append(iter(opened) if self.is_sync else aiter(opened))
        del opened

        async def one() -> str:
            source = kept[1]
            if self.is_sync:
                return str(await asyncio.to_thread(next, source))
            return str(await anext(source))

        async def rest() -> str:
            source = kept[1]
            if self.is_sync:
                return await asyncio.to_thread(lambda: "".join(_text(part) for part in source))
            return "".join([_text(part) async for part in source])

        async def close() -> None:
            closes = "aclose" if is_bare and not self.is_sync else "close"
            await self.do(getattr(kept[0], closes))

        return Streamed(kept=kept, rest=rest, one=one, close=close)

    async def aclose(self) -> None:
        await self.do(self.client.close if self.is_sync else self._aclose)

    async def _aclose(self) -> None:
        await (self.client.aclose() if self.name.startswith("httpx") else self.client.close())


def _text(part: Any) -> str:
    if isinstance(part, bytes):
        return part.decode()
    if hasattr(part, "choices"):
        return "".join(choice.delta.content or "" for choice in part.choices)
    delta = getattr(part, "delta", None)
    return getattr(delta, "text", "") or ""


DRIVERS = [f"{caller}-{face}" for caller in CALLERS for face in ("async", "sync")]
ASYNC_DRIVERS = [name for name in DRIVERS if name.endswith("-async")]
BARE = [name for name in DRIVERS if name.startswith("httpx")]
SDKS = [name for name in DRIVERS if name not in BARE]

every_driver = pytest.mark.parametrize("name", DRIVERS)


def library_of(name: str) -> str:
    """Return the HTTP library below a driver; OpenAI's SDK changed its own with 3.0."""
    caller = name.partition("-")[0]
    is_old = caller == "openai" and int(CALLERS[caller].__version__.partition(".")[0]) < 3
    return "httpx" if caller == "httpx" or is_old else "httpx2"


def driver(name: str, http_client: Any, base_url: str, max_retries: int = 0) -> Driver:
    """Make a driver whose requests go through ``http_client``."""
    caller, face = name.split("-")
    sdk = CALLERS[caller]
    if caller == "openai":
        cls = sdk.OpenAI if face == "sync" else sdk.AsyncOpenAI
        client = cls(
            api_key=API_KEY, base_url=base_url, max_retries=max_retries, http_client=http_client
        )

        def call(text: str, **fields: Any) -> Any:
            messages = [{"role": "user", "content": text}]
            return client.chat.completions.create(model="m", messages=messages, **fields)

    elif caller == "anthropic":
        cls = sdk.Anthropic if face == "sync" else sdk.AsyncAnthropic
        client = cls(
            api_key=API_KEY,
            base_url=base_url.removesuffix("/v1"),
            max_retries=max_retries,
            http_client=http_client,
        )

        def call(text: str, **fields: Any) -> Any:
            messages = [{"role": "user", "content": text}]
            return client.messages.create(model="m", messages=messages, max_tokens=50, **fields)

    else:
        client = http_client

        def call(text: str, *, stream: bool, timeout: float = 5.0) -> Any:
            request = client.build_request(
                "POST",
                f"{base_url}/chat/completions",
                json={
                    "model": "m",
                    "messages": [{"role": "user", "content": text}],
                    "stream": stream,
                },
                headers={"authorization": f"Bearer {API_KEY}"},
                timeout=timeout,
            )
            return client.send(request, stream=stream)

    return Driver(name=name, call=call, client=client)


def _errors(**names: str) -> tuple[type[Exception], ...]:
    return tuple(
        getattr(CALLERS[caller], name) for caller, name in names.items() if caller in CALLERS
    )


STATUS_ERRORS = _errors(
    openai="APIStatusError",
    anthropic="APIStatusError",
    httpx="HTTPStatusError",
    httpx2="HTTPStatusError",
)
TIMEOUTS = _errors(
    openai="APITimeoutError",
    anthropic="APITimeoutError",
    httpx="TimeoutException",
    httpx2="TimeoutException",
)
CONNECTION_ERRORS = _errors(
    openai="APIConnectionError",
    anthropic="APIConnectionError",
    httpx="ConnectError",
    httpx2="ConnectError",
)


def client_for(
    name: str,
    requests: Any,
    provider: RawProvider,
    **options: Any,
) -> Any:
    """A client of the library and face that a driver wants, whose provider/model is MODEL."""
    options.setdefault("resolve", HttpResolver(providers={provider.host: MODEL.provider_name}))
    return forebay.http_client(
        requests,
        library=library_of(name),
        sync=name.endswith("-sync"),
        **options,
    )
