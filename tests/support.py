"""What tests of every kind share."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

_POLL_SECONDS = 0.005


async def wait_until(
    predicate: Callable[[], bool | Awaitable[bool]], timeout: float = 20.0
) -> None:
    """Waits until the predicate, sync or async, is true; AssertionError after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        if time.monotonic() > deadline:
            source = inspect.getsource(predicate).strip()
            raise AssertionError(f"not true within {timeout:g} s: {source}")
        await asyncio.sleep(_POLL_SECONDS)
