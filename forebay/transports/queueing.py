"""Observers of a request's wait in the queue, given by the code that sends the request."""

from __future__ import annotations

from typing import Any, Final, Protocol

from forebay.contracts.identity import RequestResourceKey

QUEUE_EXTENSION: Final = "forebay.queue"
"""Key of a request's ``extensions`` under which its `WaitObserver` stands."""


class WaitObserver(Protocol):
    """Observes one request's wait for its lease; the methods are called on the event loop."""

    def begin(self, resource: RequestResourceKey) -> None:
        """Note that the request now asks for a lease of this resource."""
        ...

    def end(self) -> None:
        """Note that the lease was granted, denied, or is no longer waited for."""
        ...


class _NoObserver:
    def begin(self, resource: RequestResourceKey) -> None:
        pass

    def end(self) -> None:
        pass


_NO_OBSERVER: Final = _NoObserver()


def wait_observer_of(request: Any) -> WaitObserver:
    """Return the observer that a request of httpx or httpx2 carries; else one that does nothing."""
    observer: WaitObserver = request.extensions.get(QUEUE_EXTENSION, _NO_OBSERVER)
    return observer
