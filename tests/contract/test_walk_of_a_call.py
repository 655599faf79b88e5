"""Which files a call passes (ADR 0019)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any, Self

import forebay
from forebay import coordinator
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import MODEL, item
from tests.support_scene import Controller, settings

PACKAGE = Path(str(coordinator.__file__)).parent
GROUND = {"keys.py", "logs.py", "supervision.py"}
WALK = {
    "requests/controller.py",
    "requests/shard.py",
    "requests/operations.py",
    "shard/session.py",
    "shard/batches.py",
    "shard/shard_time.py",
    "server/wire.py",
}


class Walk:
    """Notes the files of the coordinator in which functions are called."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            self.files.add(path.relative_to(PACKAGE).as_posix())


async def test_an_acquire_that_is_granted_at_once_passes_seven_files(redis_url: str) -> None:
    async with await ServerConnection.open(redis_url, settings()) as connection:
        requests = Controller(connection)
        await requests.register(MODEL, "main", 2)
        walks = []
        for _ in range(5):  # the first meets all for the first time; a heartbeat may fall into one
            asked = item()
            with Walk() as walk:
                lease = await requests.acquire(asked)
            await requests.release(lease, forebay.SUCCESS)
            walks.append(walk.files - GROUND)
        await requests.close()
    assert set.intersection(*walks) == WALK
