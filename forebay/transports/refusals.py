"""Bodies of refusals that are read before an SDK has the answer (ADR 0029).

Only the body of a 429 says whether the request could ever be served, and an SDK that sends a
streaming call again does not read it. So it is read here, and the SDK gets the same bytes later.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

MOST_BYTES: Final = 65_536
"""Most bytes that are read ahead; the rest of a longer body is left to its reader."""


class _Ahead:
    """A body whose beginning is kept in memory.

    Args:
        body: reads from the provider.
        parts: what is left of it.
    """

    def __init__(self, body: Any, parts: Any) -> None:
        self._body = body
        self._parts = parts
        self._kept: list[bytes] = []
        self._size = 0
        self._error: Exception | None = None

    def _is_enough(self, part: bytes) -> bool:
        self._kept.append(part)
        self._size += len(part)
        return self._size > MOST_BYTES

    def _kept_parts(self) -> Iterator[bytes]:
        """Yield the kept beginning, then raise the kept error, if any."""
        yield from self._kept
        if self._error is not None:
            raise self._error


class AsyncAhead(_Ahead):
    """A body read ahead on an event loop."""

    async def read(self) -> None:
        """Read the beginning; an error is kept for the reader of the body."""
        try:
            async for part in self._parts:
                if self._is_enough(part):
                    break
        except Exception as error:  # noqa: BLE001 - the reader's to handle
            self._error = error
        except BaseException:
            await self.aclose()
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._kept_parts():
            yield part
        async for part in self._parts:
            yield part

    async def aclose(self) -> None:
        """Close the body."""
        await self._body.aclose()


class BlockingAhead(_Ahead):
    """A body read ahead in a thread."""

    def read(self) -> None:
        """Read the beginning; an error is kept for the reader of the body."""
        try:
            for part in self._parts:
                if self._is_enough(part):
                    break
        except Exception as error:  # noqa: BLE001 - the reader's to handle
            self._error = error
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        yield from self._kept_parts()
        yield from self._parts

    def close(self) -> None:
        """Close the body."""
        self._body.close()


async def read_ahead(body: Any) -> AsyncAhead:
    """Return a body with the same bytes, of which up to `MOST_BYTES` are read.

    Raises:
        BaseException: what is no ``Exception``, such as a cancellation; the body is closed then.
    """
    ahead = AsyncAhead(body, aiter(body))
    await ahead.read()
    return ahead


def read_ahead_blocking(body: Any) -> BlockingAhead:
    """Return a body with the same bytes, of which up to `MOST_BYTES` are read; see `read_ahead`."""
    ahead = BlockingAhead(body, iter(body))
    ahead.read()
    return ahead
