"""``on_unavailable="wait"``: a call is made again until the server answers.

Rules: design 06, *When Redis is away*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.supervision import pause_seconds

T = TypeVar("T")


async def retry_while_away(
    settings: MemberSettings, ask: Callable[[], Awaitable[T]], is_closed: Callable[[], bool]
) -> T:
    """Call the server, again while it is away if the settings say ``wait``; return the result.

    Args:
        settings: in another mode than ``wait`` the call is made once.
        ask: the call; it may be carried out more than once.
        is_closed: whether the caller was closed, so that no call is made again.

    Raises:
        CoordinatorUnavailable: no answer within the deadline, or the caller was closed.
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
