"""``connect``: request admission for a program, async or not, as one block."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

from forebay.contracts.checks import check_type, shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.events import EventSink
from forebay.contracts.outcomes import ClassifyException, RequestReleaseOutcome
from forebay.contracts.requests import RequestAdmissionLease
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.event_outlet import EventOutlet
from forebay.coordinator.host_process import refuse_green_threads
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.blocking import BlockingRequestAdmissionController
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.threads import refuse_to_block_a_loop
from forebay.coordinator.server_connection import ServerConnection
from forebay.runtime import DEFAULT_URL, run_async
from forebay.workers.providers.classification import DefaultClassifier

log = Logger("forebay.connecting")

LeaseLost = Callable[[RequestAdmissionLease, str], None]


def classify_raised(error: Exception) -> RequestReleaseOutcome:
    """Classify an exception of a provider call, also of HTTP libraries and SDKs."""
    return DefaultClassifier().classify_exception(error, now=time.time())


def connect(
    url: str = DEFAULT_URL,
    settings: MemberSettings | None = None,
    *,
    classify: ClassifyException = classify_raised,
    on_lease_lost: LeaseLost | None = None,
    event_sinks: Sequence[EventSink] = (),
) -> Connection:
    """Connect this process to a server and give it request admission, for the length of a block.

    ``async with`` gives an `AdaptiveRequestAdmissionController` on the running event loop; ``with``
    gives a `BlockingRequestAdmissionController`, for synchronous programs and their threads, on an
    event loop in a thread of its own. Leaving the block denies whoever still waits with
    ``shutdown``, releases every lease and leaves the fleet.

    Args:
        url: ``embedded://``, ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://``.
        settings: TTL and deadlines; the defaults are safe.
        classify: reads from an exception how an attempt ended; the default knows statuses and
            hints of ``httpx`` and the SDKs on it, timeouts and connection errors.
        on_lease_lost: called with each lease that ended without being released, and why; on the
            event loop, so with ``with`` in Forebay's own thread.
        event_sinks: take the events of attempts, such as those of ``forebay.sinks``
            (docs/events.md); without one that takes them no event is built.

    Returns:
        A block that nothing was connected for yet; it is entered once.

    Raises:
        ConfigurationError: on entering, an argument or the credentials are wrong, ``with`` where an
            event loop runs, or a second time; also in a forked child, which must connect anew.
        CoordinatorError: on entering, the server cannot be used.

    Example:
        >>> async def main() -> None:
        ...     async with forebay.connect(url) as requests:
        ...         print(await requests.register(chat.provider_model, "mine", 8))
        ...         async with requests.attempt(forebay.RequestAdmissionItem(resource=chat)):
        ...             pass  # one provider call
        >>> asyncio.run(main())
        8
        >>> with forebay.connect(url) as requests:
        ...     requests.register(chat.provider_model, "mine", 4)
        4
    """
    return Connection(_admission(url, settings, classify, on_lease_lost, event_sinks))


@asynccontextmanager
async def _admission(
    url: str,
    settings: MemberSettings | None,
    classify: ClassifyException,
    on_lease_lost: LeaseLost | None,
    event_sinks: Sequence[EventSink],
) -> AsyncIterator[AdaptiveRequestAdmissionController]:
    check_type("url", url, str)
    if settings is not None:
        check_type("settings", settings, MemberSettings)
    for what, given in (("classify", classify), ("on_lease_lost", on_lease_lost)):
        if given is not None and (isinstance(given, type) or not callable(given)):
            raise ConfigurationError(f"{what} is {shown(given)}, expected a function; pass one.")
    events = EventOutlet(event_sinks)
    async with await ServerConnection.open(url, settings) as connection:
        controller = AdaptiveRequestAdmissionController(
            connection, classify=classify, on_lease_lost=on_lease_lost, events=events
        )
        try:
            yield controller
        finally:
            await controller.close()


class Connection:
    """The block that `connect` returns, entered once with ``async with`` or with ``with``.

    Args:
        admission: the block on an event loop.
    """

    def __init__(
        self, admission: AbstractAsyncContextManager[AdaptiveRequestAdmissionController]
    ) -> None:
        self._admission = admission
        self._is_used = False
        self._process_id = os.getpid()
        self._thread = threading.Thread(target=self._run, name="forebay-loop", daemon=True)
        self._opened: Future[AdaptiveRequestAdmissionController] = Future()
        self._left: Future[None] = Future()
        self._closed: Future[None] = Future()

    async def __aenter__(self) -> AdaptiveRequestAdmissionController:
        self._use()
        return await self._admission.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._admission.__aexit__(kind, error, traceback)

    def __enter__(self) -> BlockingRequestAdmissionController:
        refuse_green_threads()
        refuse_to_block_a_loop("`with forebay.connect(...)`", "`async with forebay.connect(...)`")
        self._use()
        self._thread.start()
        try:
            return BlockingRequestAdmissionController(self._opened.result())
        except BaseException:
            self._left.set_result(None)  # interrupted: what opens meanwhile closes by itself
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if os.getpid() != self._process_id:
            return  # a forked child: neither the loop nor the membership is its own
        self.leave_soon()
        self._thread.join()
        self._closed.result()

    def leave_soon(self) -> None:
        """Begin to leave a ``with`` block, so that its end waits for less."""
        if os.getpid() == self._process_id:
            with contextlib.suppress(InvalidStateError):  # begun before
                self._left.set_result(None)

    def _use(self) -> None:
        if self._is_used:
            raise ConfigurationError(
                "this connection was entered before; call forebay.connect again for another."
            )
        self._is_used = True

    def _run(self) -> None:
        try:
            run_async(self._hold_open())
        except BaseException as error:  # noqa: BLE001 - raised where the program waits for it
            if self._opened.done():  # which may be long from now: the end of the block
                log.unexpected("connection_ended", error)
            (self._closed if self._opened.done() else self._opened).set_exception(error)
        else:
            self._closed.set_result(None)

    async def _hold_open(self) -> None:
        async with self._admission as controller:
            self._opened.set_result(controller)
            await asyncio.wrap_future(self._left)
