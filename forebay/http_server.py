"""Base of the servers of `forebay proxy` and `forebay ops`: an orderly end, and /healthz."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse

from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server_connection import ServerConnection

HEALTH_SECONDS: Final = 2.0
_RELEASE_SECONDS: Final = 5.0
"""Time for cancelled requests to clean up and to answer, after the grace time."""


class StoppableServer(uvicorn.Server):
    """A server that lets calls end on SIGTERM and SIGINT, and reports when it accepts any."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, then call the callback."""
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections, and wait for the requests that were cancelled by it."""
        await super().shutdown(sockets)
        if self.server_state.tasks:  # cancelled just now: each releases its lease
            await asyncio.wait(list(self.server_state.tasks), timeout=_RELEASE_SECONDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop in order on SIGTERM and SIGINT, for the length of a block."""
        # uvicorn raises a signal again once it has stopped, which would end this process before it
        # has cleaned up.
        loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def health_of(connection: ServerConnection) -> Callable[[Request], Any]:
    """Return the handler of /healthz: 200 while the server answers, else 503 with the reason."""

    async def health(_request: Request) -> JSONResponse:
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                await connection.time()
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            unavailable = connection_error(error, connection.address, "answering /healthz")
            return JSONResponse({"status": "unavailable", "error": str(unavailable)}, 503)
        return JSONResponse({"status": "ok"})

    return health
