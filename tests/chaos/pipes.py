"""Connections between a process and the server that can be cut, refused and swallowed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

HOST: Final = "127.0.0.1"
_CHUNK: Final = 65536


class Pipe:
    """Listens on a port of its own and passes bytes on to the server, whichever that is now.

    Attributes:
        target_port: the server's; new connections go there.
        port: where this listens.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refuses = False
        self._listener: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of the server by this pipe."""
        return f"redis://{HOST}:{self.port}"

    async def open(self) -> None:
        """Listen."""
        self._listener = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut all and listen no more."""
        if self._listener is not None:
            self._listener.close()
        self.flow()
        self.refuse()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self) -> None:
        """Cut every connection; new ones are taken."""
        for writer in list(self._writers):
            writer.transport.abort()

    def refuse(self) -> None:
        """Cut every connection, and hang up on new ones."""
        self._refuses = True
        self.cut()

    def swallow(self) -> None:
        """Pass nothing on any more, in both directions, and keep all connections open."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass on, again, what comes and what was held back."""
        self._refuses = False
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._writers.add(writer)
        try:
            if self._refuses:
                return
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection(HOST, self.target_port)
                self._writers.add(back)
                try:
                    ways = [self._pass(reader, back), self._pass(there, writer)]
                    ending = [asyncio.ensure_future(way) for way in ways]
                    await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
                    for way in ending:
                        way.cancel()
                finally:
                    self._writers.discard(back)
                    back.transport.abort()
        finally:
            self._writers.discard(writer)
            self._serving.discard(task)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
