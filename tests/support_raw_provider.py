"""A provider that answers byte for byte as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

WORDS = ["So", " it", " is", "."]
SENTENCE = "".join(WORDS)
PROMPT = "a prompt that nobody else may see"


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

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour: Behaviour = behaviour or answers
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


def completion(asked: Asked, text: str = SENTENCE) -> dict[str, Any]:
    """A whole answer in the shape of the API that was asked."""
    if asked.is_anthropic:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 7, "output_tokens": 4},
        }
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11},
    }


def events(asked: Asked) -> list[bytes]:
    """The events of a streamed answer in the shape of the API that was asked."""
    if asked.is_anthropic:
        start = {**completion(asked), "content": [], "stop_reason": None}
        start["usage"] = {"input_tokens": 7, "output_tokens": 1}
        told: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            },
            *(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": word},
                }
                for word in WORDS
            ),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 4},
            },
            {"type": "message_stop"},
        ]
        return [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in told]
    parts = [
        {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
            "usage": None,
        }
        for delta, end in [*(({"content": word}, None) for word in WORDS), ({}, "stop")]
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    parts.append({**parts[0], "choices": [], "usage": usage})
    return [*(b"data: %b\n\n" % json.dumps(one).encode() for one in parts), b"data: [DONE]\n\n"]


async def answers(asked: Asked, reply: Reply) -> None:
    """Answer as a provider with nothing to complain of."""
    if not asked.is_stream:
        await reply.send(whole(completion(asked)))
        return
    await reply.send(begun_stream())
    for event in events(asked):
        await reply.send(chunk(event))
    await reply.send(chunk(b""))


async def stalls(_asked: Asked, reply: Reply) -> None:
    """Answer nothing before it is told to go on."""
    await reply.goes_on.wait()


async def stalls_midway(asked: Asked, reply: Reply) -> None:
    """Stream some, and the rest when it is told to go on."""
    told = events(asked)
    await reply.send(begun_stream() + b"".join(map(chunk, told[:4])))
    await reply.goes_on.wait()
    await reply.send(b"".join(map(chunk, [*told[4:], b""])))


def refuses(status: int = 429, code: str = "rate_limit_exceeded", **headers: str) -> Behaviour:
    async def refuse(_asked: Asked, reply: Reply) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        await reply.send(whole({"error": {"code": code, "message": PROMPT}}, status, fields))

    return refuse


def tells_overload_within(asked: Asked) -> bytes:
    """An overload told within a stream with a good status."""
    if asked.is_anthropic:
        fault = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return b"event: error\ndata: %b\n\n" % json.dumps(fault).encode()
    fault = {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}
    return b"data: %b\n\n" % json.dumps(fault).encode()
