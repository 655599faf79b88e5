"""Bodies of answers that hold a lease until they are read, closed or dropped.

Rules: design 03, *Transport*.

Their bytes pass through untouched. A body that is never read or closed releases its lease when it
is garbage collected.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from forebay.coordinator.logs import Logger
from forebay.coordinator.supervision import Guard
from forebay.transports.lanes import Exchange

_guard: Final = Guard(Logger("forebay.transports"))

_closing: set[asyncio.Task[None]] = set()
"""Tasks that close dropped bodies; kept here, as the loop holds tasks only weakly."""


class AsyncBody:
    """The body of one answer on an event loop.

    Args:
        inner: the body that is passed through.
        exchange: notes the bytes that pass, and how the body ends.
    """

    def __init__(self, inner: Any, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange
        self._is_closing = False
        self._loop = asyncio.get_running_loop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        exchange.asked()
        try:
            async for chunk in self._inner:
                exchange.saw(chunk)
                yield chunk
                exchange.asked()
        except GeneratorExit:
            raise  # who stops reading closes the body next, or drops it
        except BaseException as error:
            if not self._is_closing:  # else it was another who made the reading fail
                exchange.failed(error)
            raise
        exchange.ended()

    async def aclose(self) -> None:
        """Close the connection or hand it back, then the lease: the provider's slot goes first."""
        self._is_closing = True
        await _close(self._inner, self._exchange)

    def __del__(self) -> None:
        if self._exchange.is_closed:
            return
        # Not here: garbage is collected in the middle of anything, and in any thread.
        try:
            self._loop.call_soon_threadsafe(_close_soon, self._loop, self._inner, self._exchange)
        except RuntimeError:  # the loop is closed, and its connections with it
            self._exchange.closed()


async def _close(inner: Any, exchange: Exchange) -> None:
    try:
        await inner.aclose()
    finally:
        exchange.closed()


def _close_soon(loop: asyncio.AbstractEventLoop, inner: Any, exchange: Exchange) -> None:
    task = loop.create_task(_close_dropped(inner, exchange))
    _closing.add(task)
    task.add_done_callback(_closing.discard)
    # A task that is cancelled before its first step would keep the lease.
    task.add_done_callback(lambda _task: exchange.closed())


async def _close_dropped(inner: Any, exchange: Exchange) -> None:
    try:
        await _close(inner, exchange)
    except Exception as error:  # noqa: BLE001 - whoever dropped the body hears of nothing
        _guard.note("closing a dropped body", error)


class Dropped:
    """Unclosed bodies of threads, to be closed where that is safe.

    Any thread may call, as often as it likes.
    """

    def __init__(self) -> None:
        self._bodies: deque[tuple[Any, Exchange]] = deque()

    def add(self, inner: Any, exchange: Exchange) -> None:
        """Note a body; closed on the controller's loop, or with the next request if it has none."""
        # Not here: closing takes locks that this very thread may hold while garbage is collected.
        self._bodies.append((inner, exchange))
        exchange.soon(self.close)

    def close(self) -> None:
        """Close the noted bodies: the connection first, then the lease."""
        while True:
            try:
                inner, exchange = self._bodies.popleft()
            except IndexError:  # another thread may have taken the last one
                return
            _guard.call(_close_blocking, inner, exchange)


class BlockingBody:
    """The body of one answer in a thread.

    Args:
        inner: the body that is passed through.
        exchange: notes the bytes that pass, and how the body ends.
        dropped: takes it if nobody closes it.
    """

    def __init__(self, inner: Any, exchange: Exchange, dropped: Dropped) -> None:
        self._inner = inner
        self._exchange = exchange
        self._is_closing = False
        self._dropped = dropped

    def __iter__(self) -> Iterator[bytes]:
        exchange = self._exchange
        exchange.asked()
        try:
            for chunk in self._inner:
                exchange.saw(chunk)
                yield chunk
                exchange.asked()
        except GeneratorExit:
            raise  # as in AsyncBody
        except BaseException as error:
            if not self._is_closing:  # else it was another who made the reading fail
                exchange.failed(error)
            raise
        exchange.ended()

    def close(self) -> None:
        """Close the connection or hand it back, then the lease: the provider's slot goes first."""
        self._is_closing = True
        _close_blocking(self._inner, self._exchange)

    def __del__(self) -> None:
        if not self._exchange.is_closed:
            self._dropped.add(self._inner, self._exchange)


def _close_blocking(inner: Any, exchange: Exchange) -> None:
    try:
        inner.close()
    finally:
        exchange.closed()
