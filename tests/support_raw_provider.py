"""A provider that answers byte for byte as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(kw_only=True)
class Asked:
    """A request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def is_anthropic(self) -> bool:
        return self.path.endswith("/messages")

    @property
    def is_stream(self) -> bool:
        return json.loads(self.body).get("stream", False)


@dataclass
class Reply:
    """The way back to a client."""

    writer: asyncio.StreamWriter
    goes_on: asyncio.Event

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Behaviour = Callable[[Asked, Reply], Awaitable[None]]


class RawProvider:
    """An HTTP/1.1 server in a thread of its own; ``behaviour`` says what it answers.

    Attributes:
        asked: every request it saw.
        behaviour: answers; may be replaced between requests.
        hung_up: how many clients left while they were answered.
        connected: how many connections were opened.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.asked: list[Asked] = []
        self.hung_up = 0
        self.connected = 0
        self.base_url = ""
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._goes_on: asyncio.Event | None = None
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._handlers: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def host(self) -> str:
        return self.base_url.removeprefix("http://").removesuffix("/v1")

    def go_on(self) -> None:
        """Let every answer go on that waits for ``Reply.goes_on``."""
        assert self._goes_on is not None
        self._loop.call_soon_threadsafe(self._goes_on.set)

    def stop_listening(self) -> None:
        """Refuse every connection from now on, and hang up on those that are open."""
        asyncio.run_coroutine_threadsafe(self._stop_listening(), self._loop).result(10)

    async def _stop_listening(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._handlers:
            task.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._goes_on = asyncio.Event()
        self._server = server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**26)
        )
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._started.set()
        self._loop.run_forever()
        server.close()
        for task in self._handlers:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._handlers, return_exceptions=True))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._handlers.add(task)
        self.connected += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._serve_one(reader, writer)
        finally:
            self._handlers.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value
            for name, value in (line.split(": ", 1) for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        asked = Asked(method=method, path=path, headers=headers, body=body)
        self.asked.append(asked)
        answer = asyncio.ensure_future(self.behaviour(asked, Reply(writer, self._goes_on)))
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait([answer, gone], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            self.hung_up += 1
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            raise ConnectionResetError
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        answer.result()


def whole(
    body: bytes | Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> bytes:
    """An answer with its length."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body))}
    return _head(status, {**fields, **(headers or {})}) + body


def begun_stream(headers: Mapping[str, str] | None = None) -> bytes:
    """The head of a stream of events."""
    fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
    return _head(200, {**fields, **(headers or {})})


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode()
