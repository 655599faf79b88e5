"""Waits of cells end when the provider cools down, even if reading its window fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from forebay.contracts.errors import CoordinatorError
from forebay.contracts.identity import RequestResourceKey
from forebay.contracts.requests import (
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestDenialReason,
)
from forebay.workers.runs import cooldowns
from forebay.workers.runs.cooldowns import ImpatientLeases
from tests.contract.chat_domain import CHAT

COOLDOWN_SECONDS = 60.0


class Pressure:
    """Shows a cooldown, once its first look has ended badly."""

    def __init__(self, first: Callable[[], object]) -> None:
        self._first: Callable[[], object] | None = first

    async def snapshot(self, resource: RequestResourceKey) -> Any:
        assert resource == CHAT
        first, self._first = self._first, None
        if first is not None:
            first()
            await asyncio.sleep(0)  # where a cancellation is met
        return SimpleNamespace(cooldown_remaining_seconds=COOLDOWN_SECONDS)


class NoLeases:
    """Grants nothing."""

    async def acquire(self, item: RequestAdmissionItem) -> Any:
        await asyncio.Event().wait()


def fail(error: Exception) -> None:
    raise error


def cancel_the_look() -> None:
    look = asyncio.current_task()
    assert look is not None
    look.cancel()


@pytest.mark.parametrize(
    "ends",
    [lambda: fail(ValueError("a bug")), lambda: fail(CoordinatorError("away")), cancel_the_look],
    ids=["ValueError", "CoordinatorError", "CancelledError"],
)
async def test_a_look_that_ends_badly_is_followed_by_another(
    ends: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cooldowns, "LOOK_SECONDS", 0.0)
    leases: Any = NoLeases()
    impatient = ImpatientLeases(leases, Pressure(ends))
    try:
        async with asyncio.timeout(20.0):
            with pytest.raises(RequestAdmissionError) as denied:
                await impatient.acquire(RequestAdmissionItem(resource=CHAT))
    finally:
        await impatient.aclose()
    assert denied.value.denied.reason is RequestDenialReason.COOLDOWN
