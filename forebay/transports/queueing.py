"""How long a request waits in the queue, told to the code that sends it."""

from __future__ import annotations

from typing import Any, Final, Protocol

from forebay.contracts.identity import RequestResourceKey

QUEUE_EXTENSION: Final = "forebay.queue"
"""Key of a request's ``extensions`` under which an object that follows its wait is handed over."""


class FollowsWait(Protocol):
    """Follows the wait of one request for its lease; its methods are called on the event loop."""

    def begin(self, resource: RequestResourceKey) -> None:
        """Note that the request now asks for a lease of this resource."""
        ...

    def end(self) -> None:
        """Note that the lease was granted, denied, or is no longer waited for."""
        ...


class _FollowsNothing:
    def begin(self, resource: RequestResourceKey) -> None:
        pass

    def end(self) -> None:
        pass


_NOTHING: Final = _FollowsNothing()


def follower_of(request: Any) -> FollowsWait:
    """Return the object that follows the wait of a request of httpx or httpx2."""
    follower: FollowsWait = request.extensions.get(QUEUE_EXTENSION, _NOTHING)
    return follower
