"""``BlockingRequestAdmissionController``: the face of request admission for threads.

Rules: design 02, *Requests*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, ParamSpec, TypeVar

from forebay.contracts.identity import ProviderModelKey, RequestGroupSpec, RequestResourceKey
from forebay.contracts.outcomes import ReleaseResult, RequestReleaseOutcome
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionItem,
    RequestAdmissionLease,
)
from forebay.contracts.settings import RequestAdmissionConfig
from forebay.coordinator.requests.attempts import RequestAttempt, limited
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.denials import shut_down
from forebay.coordinator.requests.threads import LoopCaller, LoopEndedError

P = ParamSpec("P")
R = TypeVar("R")

_CONNECT_ON_LOOP: Final = "`async with forebay.connect(...)`"


class BlockingRequestAdmissionController:
    """Request admission for synchronous programs: blocking methods for any thread.

    Every method may be called from any thread in which no event loop runs, blocks that thread, and
    runs the controller's own method on its loop. Where an event loop runs, each raises a
    `ConfigurationError`.

    Args:
        controller: the controller, whose loop runs in another thread.

    Example:
        >>> with forebay.connect(url) as requests:
        ...     cap = requests.register(chat.provider_model, "mine", 1)
        ...     lease = requests.acquire(forebay.RequestAdmissionItem(resource=chat))
        ...     requests.assert_held(lease)
        ...     refused = requests.try_acquire(forebay.RequestAdmissionItem(resource=chat))
        ...     released = requests.release(lease, forebay.SUCCESS)
        ...     with requests.attempt(forebay.RequestAdmissionItem(resource=chat)):
        ...         pass  # one provider call
        ...     print(cap, refused.reason, released.reason, requests.limited(chat)(len)("four"))
        1 no_capacity released 4
    """

    def __init__(self, controller: AdaptiveRequestAdmissionController) -> None:
        self._controller = controller

    @property
    def caller(self) -> LoopCaller:
        """The caller that runs the controller's methods on its event loop."""
        return self._controller.caller

    def register(
        self,
        provider_model: ProviderModelKey,
        alias: str,
        max_parallel_requests: int,
        config: RequestAdmissionConfig | None = None,
    ) -> int:
        """Register a provider/model: `AdaptiveRequestAdmissionController.register`."""
        return self._controller.caller.call(
            lambda: self._controller.register(provider_model, alias, max_parallel_requests, config),
            instead=_CONNECT_ON_LOOP,
        )

    def try_acquire(self, item: RequestAdmissionItem) -> RequestAdmissionDecision:
        """Decide at once: `AdaptiveRequestAdmissionController.try_acquire`."""
        try:
            return self._controller.caller.call(
                lambda: self._controller.try_acquire(item),
                instead=_CONNECT_ON_LOOP,
                undo=self._controller.return_unused,
            )
        except LoopEndedError:
            return shut_down(item)

    def acquire(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Wait in the fair queue: `AdaptiveRequestAdmissionController.acquire_sync`."""
        return self._controller.acquire_sync(item)

    def release(
        self,
        lease: RequestAdmissionLease,
        outcome: RequestReleaseOutcome,
        *,
        timeout_seconds: float | None = None,
    ) -> ReleaseResult:
        """Release a lease: `AdaptiveRequestAdmissionController.release_sync`."""
        return self._controller.release_sync(lease, outcome, timeout_seconds=timeout_seconds)

    def assert_held(self, lease: RequestAdmissionLease) -> None:
        """Check before bytes go out: `AdaptiveRequestAdmissionController.assert_held`."""
        self._controller.assert_held(lease)

    def learn(self, lease: RequestAdmissionLease, readings: Sequence[QuotaReading]) -> None:
        """Report an answer's quota readings: `AdaptiveRequestAdmissionController.learn`."""
        self._controller.learn(lease, readings)

    def attempt(self, item: RequestAdmissionItem) -> RequestAttempt:
        """Make one provider call, as a ``with`` block: `RequestAttempt`."""
        return self._controller.attempt(item)

    def limited(
        self,
        resource: RequestResourceKey,
        *,
        group: RequestGroupSpec | None = None,
        queue_wait_timeout_seconds: float | None = None,
        cost: int | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function, not an async one: `AdaptiveRequestAdmissionController.limited`."""
        return limited(
            self.attempt,
            resource,
            group=group,
            queue_wait_timeout_seconds=queue_wait_timeout_seconds,
            cost=cost,
            takes_async=False,
        )
