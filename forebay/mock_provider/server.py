"""Runs the mock provider on uvicorn: in the foreground, or in a thread for tests and the demo."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import how_to_install
from forebay.mock_provider.app import create_app
from forebay.mock_provider.log import ProviderLog
from forebay.mock_provider.state import ProviderState
from forebay.mock_provider.truth import ProviderTruth
from forebay.serving import BACKLOG, base_url_of, listen

try:
    import uvicorn
except ImportError as exc:
    raise ConfigurationError(
        f"the mock provider needs uvicorn, which is not installed; run {how_to_install('mock')}."
    ) from exc

_START_SECONDS = 10.0
# Longer than clients keep idle connections, so that a reused one is not closed under a request.
_KEEP_ALIVE_SECONDS = 75


class _Server(uvicorn.Server):
    """A uvicorn server that says when it accepts connections, and does not linger at the end."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Requests in service may take minutes. A closed connection ends them in the ordinary way,
        # as a client that left, where a cancelled task would print a traceback each.
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.close()
        await super().shutdown(sockets)


def serve(
    state: ProviderState,
    listener: socket.socket,
    *,
    api_key: str | None = None,
    on_started: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        state: the provider; its log is closed at the end.
        listener: where it listens, see `forebay.serving.listen`; closed at the end.
        api_key: see :func:`create_app`.
        on_started: called once, when connections are accepted.
    """
    try:
        _make_server(state, api_key, on_started).run(sockets=[listener])
    finally:
        listener.close()
        state.log.close()


class MockProviderServer:
    """A mock provider on a free loopback port, in a thread of this process.

    ::

        with MockProviderServer(ProviderTruth(concurrency=4)) as provider:
            client = openai.OpenAI(base_url=provider.base_url, api_key="any")

    Attributes:
        state: truth, counters and log. Read it freely; change it with :meth:`change_truth`.
        base_url: ``http://127.0.0.1:PORT/v1``.
        root_url: the same without ``/v1``, for ``/truth`` and ``/log``.
    """

    def __init__(
        self,
        truth: ProviderTruth | None = None,
        *,
        seed: int = 0,
        api_key: str | None = None,
        log: ProviderLog | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.state = ProviderState(truth or ProviderTruth(), seed=seed, log=log)
        self._listener = listen(host, port)
        self.base_url = base_url_of(self._listener)
        self.root_url = self.base_url.removesuffix("/v1")
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = _make_server(self.state, api_key, self._note_start)
        self._thread = threading.Thread(target=self._run, name="mock-provider", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(_START_SECONDS) or self._loop is None:
            self.close()
            raise ConfigurationError(
                f"the mock provider at {self.base_url} did not start within {_START_SECONDS:g} s; "
                "its own error is on stderr"
            )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def change_truth(self, **changes: Any) -> ProviderTruth:
        """Change the hidden truth, between two requests; return the new one.

        Raises:
            ConfigurationError: an unknown field or a wrong value, or the server does not run.
        """
        loop = self._loop
        if loop is None or not self._thread.is_alive():
            raise ConfigurationError(
                f"the mock provider at {self.base_url} is not running; use it in its with block"
            )

        async def change() -> ProviderTruth:
            return self.state.change_truth(changes)

        return asyncio.run_coroutine_threadsafe(change(), loop).result(_START_SECONDS)

    def close(self) -> None:
        """Stop serving; requests in service lose their connection. Closing twice is fine."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()
        self.state.log.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            # Wakes who waits for a start that failed.
            self._started.set()

    def _note_start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started.set()


def _make_server(
    state: ProviderState, api_key: str | None, on_started: Callable[[], None]
) -> _Server:
    config = uvicorn.Config(
        create_app(state=state, api_key=api_key),
        access_log=False,
        backlog=BACKLOG,
        lifespan="off",
        # The process's own logging stays as it is.
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        ws="none",
    )
    return _Server(config, on_started)
