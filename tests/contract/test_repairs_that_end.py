"""A repair of a session's connection sends what is under way, once (design 06, *Exactly once*)."""

from __future__ import annotations

import asyncio

import pytest

from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.operations import Named


async def test_call_that_is_asked_for_as_a_repair_ends_is_sent_once(
    connection: ServerConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = TaskAdmissionController(connection, "pool")
    await controller.set_limit("gpu", 1)
    session, numbers = controller.session, list[object]()
    send = session._send

    def send_noted() -> None:
        numbers.append(session._batches.arguments[1])
        send()

    monkeypatch.setattr(session, "_send", send_noted)
    membership = session.membership
    assert membership is not None
    session._member_link._on_unknown(membership)
    asked = []
    while session._link.repairing.is_running:  # in each turn of the loop until it ends
        asked.append(session.ask(Named("set_state", ("",))))
        await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [["set"]] * len(asked)
    assert len(numbers) == len(set(numbers))
    await controller.close()
