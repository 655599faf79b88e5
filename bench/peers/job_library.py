"""The interface of a job library: how it submits no-op jobs, and how its worker runs them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

CONCURRENCY: Final = 50
"""Of each worker process."""

started_at: list[float] = []
"""When each job of this process started, by CLOCK_MONOTONIC: all that a job in Python does."""


async def noop(*_args: Any, **_kwargs: Any) -> None:
    """Note the instant."""
    started_at.append(time.monotonic())


class Submitter(Protocol):
    """Submits jobs."""

    async def submit(self, number: int) -> float:
        """Submit one job; return once the server has it, with the instant just before."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Running(Protocol):
    """A worker that runs."""

    async def count(self) -> int:
        """Return how many jobs have started in this process."""
        ...

    async def stop(self) -> list[float]:
        """End it in good order; return the instants at which jobs started, by CLOCK_MONOTONIC."""
        ...


class JobLibrary(Protocol):
    """A job library that the bench compares.

    Attributes:
        name: in the measures.
        said: in the table.
    """

    name: str
    said: str

    def version(self) -> str | None:
        """Return the installed version, "" for this repository's, None where it is missing.

        It is asked before anything is imported.
        """
        ...

    async def submitter(self, url: str) -> Submitter:
        """Connect."""
        ...

    async def start(self, url: str) -> Running:
        """Start a worker."""
        ...

    def results(self, client: Any) -> int | None:
        """Return how many jobs have left their result; None for a library that stores none."""
        ...


def count_keys(client: Any, pattern: str) -> int:
    """Return how many keys match a glob."""
    return len(list(client.scan_iter(pattern, count=10_000)))


class PythonSubmitter:
    """A submitter of two functions."""

    def __init__(
        self, submit: Callable[[int], Awaitable[Any]], close: Callable[[], Awaitable[Any]]
    ) -> None:
        self._submit = submit
        self._close = close

    async def submit(self, number: int) -> float:
        submitted_at = time.monotonic()
        await self._submit(number)
        return submitted_at

    async def close(self) -> None:
        await self._close()


class PythonWorker:
    """A worker that runs in a task of this process; ``end`` stops it."""

    def __init__(
        self,
        run: Coroutine[Any, Any, Any],
        *,
        end: Callable[[], Awaitable[Any]] | None = None,
        close: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        started_at.clear()
        self._task = asyncio.create_task(run)
        self._end = end
        self._close = close

    async def count(self) -> int:
        return len(started_at)

    async def stop(self) -> list[float]:
        if self._end is None:
            self._task.cancel()
        else:
            await self._end()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._close is not None:
            await self._close()
        return list(started_at)
