"""``on_unavailable="wait"``: what cannot reach the server is asked again (spec 06)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.supervision import pause_seconds

T = TypeVar("T")


async def with_patience(
    settings: MemberSettings, ask: Callable[[], Awaitable[T]], is_closed: Callable[[], bool]
) -> T:
    """Return what a call to the server returns; ask again while the server is away.

    Args:
        settings: say whether to ask again; with another mode than ``wait`` it is asked once.
        ask: the call; it may be carried out more than once.
        is_closed: whether nothing can be asked any more.

    Raises:
        CoordinatorUnavailable: no answer within the deadline, or it was closed.
    """
    failures = 0
    while True:
        try:
            return await ask()
        except CoordinatorUnavailable:
            if settings.on_unavailable != "wait" or is_closed():
                raise
        failures += 1
        await asyncio.sleep(pause_seconds(failures))
