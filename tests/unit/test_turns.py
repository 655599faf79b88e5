"""Workers whose server is away try it after pauses, not each turn of arq's loop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import redis

from forebay.coordinator.logs import Logger
from forebay.coordinator.server.address import UnixAddress
from forebay.coordinator.server.availability import Availability
from forebay.coordinator.supervision import Guard
from forebay.workers.arq import turns as turns_module
from forebay.workers.arq.turns import Turns


async def test_a_part_that_met_no_server_is_left_out_for_a_pause_and_a_job_s_end_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "pause_seconds", lambda failures: 60.0 if failures else 0.0)
    connection: Any = SimpleNamespace(
        client=SimpleNamespace(), availability=Availability(UnixAddress(path="/nowhere"))
    )
    turns = Turns(connection, "default", Guard(Logger("forebay.worker")))
    done: list[str] = []

    async def works() -> None:
        done.append("works")

    async def fails() -> None:
        done.append("fails")
        raise redis.ConnectionError

    for _ in range(3):
        await turns.do_unless_pausing("beats", works)
    assert done == ["works"] * 3
    for _ in range(3):
        await turns.do_unless_pausing("beats", fails)
    assert done[3:] == ["fails"]
    await turns.do("beats", fails)
    await turns.do_unless_pausing("aborts", works)
    assert done[4:] == ["fails", "works"]
