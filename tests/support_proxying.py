"""``forebay proxy`` in this process, with raw clients before it and a `RawProvider` behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from forebay.contracts.snapshots import DomainSnapshot
from forebay.coordinator.server_connection import ServerConnection
from forebay.proxy.server import ProxySettings, serve
from forebay.proxy.upstreams import parse_upstream
from forebay.serving import listen
from tests.contract.chat_domain import counts, is_idle, when
from tests.support_raw_provider import RawProvider

PATH = "/v1/chat/completions"
ASKS = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
STREAMS = json.dumps({"model": "m", "stream": True, "messages": []}).encode()


@dataclass(kw_only=True)
class Answer:
    """An answer as it came over the wire; a chunked body is put together."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


class Client:
    """A connection to a proxy, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(
        self,
        body: bytes = ASKS,
        path: str = PATH,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Self:
        """Send a request; its answer is still to be read."""
        self.begin(path, {"content-length": str(len(body)), **(headers or {})}, method)
        self.writer.write(body)
        await self.writer.drain()
        return self

    def begin(self, path: str, headers: Mapping[str, str], method: str = "POST") -> None:
        """Send the head of a request."""
        fields = {"host": "proxy", "content-type": "application/json", **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())

    async def answer(self) -> Answer:
        """Read an answer to its end, or to where the connection was broken off."""
        status, headers = await self.head()
        body, is_whole = b"", True
        try:
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                while part := await self.part():
                    body += part
        except asyncio.IncompleteReadError as broken:
            body, is_whole = body + broken.partial, False
        return Answer(status=status, headers=headers, body=body, is_whole=is_whole)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read status and headers."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}

    async def part(self) -> bytes:
        """Read one chunk; b"" is the last."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    def vanish(self) -> None:
        """Close at once, and lose what is under way."""
        self.writer.transport.abort()


@dataclass(kw_only=True)
class Proxying:
    """What a test of the proxy works with."""

    url: str
    port: int
    provider: RawProvider
    connection: ServerConnection
    serving: asyncio.Task[None]
    clients: contextlib.AsyncExitStack

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        client = Client(reader, writer)
        self.clients.callback(client.vanish)
        return client

    async def ask(self, *arguments: Any, **fields: Any) -> Client:
        """Send a request on a connection of its own; see `Client.ask`."""
        return await (await self.client()).ask(*arguments, **fields)

    async def call(self, *arguments: Any, **fields: Any) -> Answer:
        """Send a request on a connection of its own and read the answer."""
        return await (await self.ask(*arguments, **fields)).answer()

    async def when(self, wanted: Callable[[DomainSnapshot], bool]) -> DomainSnapshot:
        return await when(self.connection, wanted)

    async def ended(self) -> dict[str, int]:
        """Return how the leases ended, once none is out."""
        return counts(await when(self.connection, is_idle))

    async def stop(self) -> None:
        """Send the signal, and wait until all is over."""
        os.kill(os.getpid(), signal.SIGTERM)
        await self.serving


@asynccontextmanager
async def proxying(
    redis_url: str, provider: RawProvider, *, upstreams: tuple[str, ...] = (), **settings: Any
) -> AsyncIterator[Proxying]:
    """Run a proxy before a provider; its models are those of a provider ``p``."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    given = upstreams or (f"p={provider.base_url}",)
    chosen: dict[str, Any] = {
        "max_parallel_requests": 8,
        "queue_seconds": 20.0,
        "most_bytes": 1_000_000,
        "grace_seconds": 10,
        "url": redis_url,
        **settings,
    }
    started = asyncio.Event()
    async with (
        await ServerConnection.open(redis_url) as connection,
        contextlib.AsyncExitStack() as clients,
        asyncio.timeout(60),
    ):
        served = ProxySettings(upstreams=[parse_upstream(one) for one in given], **chosen)
        serving = asyncio.create_task(serve(served, listener, started.set))
        starting = asyncio.create_task(started.wait())
        await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            starting.cancel()
            await serving
        proxy = Proxying(
            url=f"http://127.0.0.1:{port}",
            port=port,
            provider=provider,
            connection=connection,
            serving=serving,
            clients=clients,
        )
        try:
            yield proxy
        finally:
            await clients.aclose()
            if not serving.done():
                await proxy.stop()
