"""Bodies of answers that hold a lease until they are read, closed or dropped (spec 03).

Their bytes pass through untouched. A body that nobody reads or closes gives its lease back when it
is garbage collected.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

from forebay.transports.exchange import Exchange

_closing: set[asyncio.Task[None]] = set()
"""Bodies that are being closed for callers who dropped them; the loop holds tasks only weakly."""


class AsyncBody:
    """The body of one answer on an event loop.

    Args:
        inner: the body that is passed through.
        exchange: told what passes and how it ends.
    """

    def __init__(self, inner: Any, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        try:
            async for chunk in self._inner:
                exchange.saw(chunk)
                yield chunk
        except GeneratorExit:
            raise  # who stops reading closes the body next, or drops it
        except BaseException as error:
            exchange.failed(error)
            raise
        exchange.ended()

    async def aclose(self) -> None:
        """Close the connection or hand it back, then the lease: the provider's slot goes first."""
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
    task = loop.create_task(_close_quietly(inner, exchange))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _close_quietly(inner: Any, exchange: Exchange) -> None:
    with contextlib.suppress(Exception):  # nobody is there to hear of it
        await _close(inner, exchange)


class BlockingBody:
    """The body of one answer in a thread.

    Args:
        inner: the body that is passed through.
        exchange: told what passes and how it ends.
        dropped: takes the inner bodies that nobody closed.
    """

    def __init__(self, inner: Any, exchange: Exchange, dropped: deque[Any]) -> None:
        self._inner = inner
        self._exchange = exchange
        self._dropped = dropped

    def __iter__(self) -> Iterator[bytes]:
        exchange = self._exchange
        try:
            for chunk in self._inner:
                exchange.saw(chunk)
                yield chunk
        except GeneratorExit:
            raise  # as in AsyncBody
        except BaseException as error:
            exchange.failed(error)
            raise
        exchange.ended()

    def close(self) -> None:
        """Close the connection or hand it back, then the lease: the provider's slot goes first."""
        try:
            self._inner.close()
        finally:
            self._exchange.closed()

    def __del__(self) -> None:
        if self._exchange.is_closed:
            return
        # Closing takes locks that this very thread may hold while garbage is collected.
        self._dropped.append(self._inner)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._exchange.closed()
        else:  # as in AsyncBody; this may be the controller's own loop
            loop.call_soon(self._exchange.closed)
