"""Threads and starts that other processes hang on end in order, or say why not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.commands import worker
from forebay.connecting import Connection
from forebay.coordinator import server_connection
from forebay.coordinator.server_connection import ServerConnection
from tests.support import wait_until

SECRET = "a secret"  # no line of a traceback quotes it, only the message does


@pytest.mark.parametrize("standard_input", [None, SimpleNamespace(fileno=lambda: -1)])
def test_a_worker_whose_lifeline_cannot_be_read_says_so_and_stops(
    monkeypatch: pytest.MonkeyPatch, standard_input: Any
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(sys, "stdin", standard_input)
    monkeypatch.setattr(os, "kill", lambda *how: killed.append(how))
    with capture_logs() as logs:
        worker._stop_with_parent()
    assert killed == [(os.getpid(), signal.SIGTERM)]
    assert [entry["event"] for entry in logs] == ["lifeline_unreadable"]


def test_a_connection_that_ends_while_it_is_used_is_said_at_once_and_raised_at_its_end() -> None:
    @asynccontextmanager
    async def admitted() -> Any:
        async def fail() -> None:
            raise ValueError(SECRET)

        failing = asyncio.create_task(fail())
        failing.add_done_callback(lambda _: holding.cancel())
        holding = asyncio.current_task()
        assert holding is not None
        try:
            yield object()
        except asyncio.CancelledError:
            await failing

    connection = Connection(admitted())
    with capture_logs() as logs:
        connection._thread.start()
        connection._opened.result(10)
        connection._thread.join(10)
        assert [entry["event"] for entry in logs] == ["connection_ended"]
        assert SECRET not in str(logs)
        with pytest.raises(ValueError, match=SECRET):
            connection.__exit__(None, None, None)


async def test_an_embedded_server_whose_start_is_cancelled_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, stopped = [], []

    class Server:
        def __init__(self, _data_dir: object) -> None:
            self._may_start = asyncio.get_running_loop()

        def start(self) -> str:
            started.append(1)
            return "unix:///nowhere"

        def stop(self) -> None:
            stopped.append(1)

    monkeypatch.setattr(server_connection, "EmbeddedServer", Server)
    opening = asyncio.create_task(ServerConnection.open("embedded://"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await wait_until(lambda: stopped == started == [1])
