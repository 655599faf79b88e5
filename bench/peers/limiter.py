"""The interface of a limiter, which gives out a number of slots."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

from forebay.contracts.identity import ProviderModelKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The parameters with which a process opens each limiter.

    Attributes:
        url: of the server.
        cap: the most holders, over all processes where the limiter has a server.
        callers: the most calls at once of this process.
        provider_model: whose slots these are, for Forebay.
    """

    url: str
    cap: int
    callers: int
    provider_model: ProviderModelKey


class Limiter(Protocol):
    """An open limiter."""

    async def acquire(self) -> Any:
        """Wait for a slot; returns the argument of ``release``."""
        ...

    async def release(self, token: Any) -> None:
        """Release the slot; returns once that is acknowledged."""
        ...


class LimiterPeer(Protocol):
    """A kind of limiter that the bench compares.

    Attributes:
        name: in the measures.
        said: in the table: what it is.
    """

    name: str
    said: str

    def version(self) -> str | None:
        """Return the installed version, "" for a limiter of this bench, None where it is missing.

        It is asked before anything is imported.
        """
        ...

    def open(self, setting: Setting) -> AbstractAsyncContextManager[Limiter]:
        """Connect."""
        ...


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, None where there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@asynccontextmanager
async def all_open(
    peers: Sequence[LimiterPeer], setting: Setting
) -> AsyncIterator[dict[str, Limiter]]:
    """Open limiters; yield them by name."""
    async with AsyncExitStack() as stack:
        yield {peer.name: await stack.enter_async_context(peer.open(setting)) for peer in peers}
