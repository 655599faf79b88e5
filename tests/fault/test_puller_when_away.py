"""A process that pulls tasks goes on once its server is back, however long it was away."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from forebay.contracts.settings import MemberSettings
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection
from tests.support import wait_until
from tests.support_tasks import Work, joined, task

CALL_TIMEOUT_SECONDS = 0.2


@pytest.mark.parametrize("ttl_seconds", [0.5, 60.0], ids=["membership lost", "membership kept"])
async def test_tasks_are_pulled_again_after_several_call_timeouts(ttl_seconds: float) -> None:
    """The ask that waited behind the first call is given up before it ever left."""
    brief = MemberSettings(
        ttl_seconds=ttl_seconds, call_timeout_seconds=CALL_TIMEOUT_SECONDS, recheck_seconds=0.05
    )
    with EmbeddedServer() as server:
        async with (
            await ServerConnection.open(server.url, brief) as connection,
            await ServerConnection.open(server.url) as other,
            joined(other) as tasks,
            joined(connection) as taker,
        ):
            work = Work(connection, taker, 2)
            await work.be_idle()
            process = (await other.client.info("server"))["process_id"]
            os.kill(process, signal.SIGSTOP)
            try:
                await asyncio.sleep(6 * CALL_TIMEOUT_SECONDS)
            finally:
                os.kill(process, signal.SIGCONT)
            await tasks.queue.enqueue([task("a"), task("b")])
            await wait_until(lambda: sorted(work.names) == ["a", "b"])

            await work.finish()
