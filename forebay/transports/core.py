"""The transports, independent of the HTTP library (design 03, *Transport*).

httpx and httpx2 have the same interface; `clients` adds the library's base classes to these.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, ClassVar, NoReturn

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.events import captured_context
from forebay.contracts.requests import RequestAdmissionItem, new_attempt_id
from forebay.coordinator.logs import Logger
from forebay.transports.admission import AsyncAdmission, LoopOwner, keep_untouched
from forebay.transports.blocking_admission import BlockingAdmission
from forebay.transports.exchange import LeasedExchange
from forebay.transports.groups import current_group
from forebay.transports.identity import profile_for, view_of
from forebay.transports.lanes import Exchange, Lanes
from forebay.transports.queueing import wait_observer_of
from forebay.transports.refusals import read_ahead, read_ahead_blocking
from forebay.transports.rules import Rules
from forebay.transports.streams import Dropped
from forebay.workers.executor import in_executor
from forebay.workers.providers.registry import PreparedProfile
from forebay.workers.providers.token_estimate import output_bound

log = Logger("forebay.transports")

_RETRY_HEADER = "x-stainless-retry-count"


class ItemBuilder:
    """Builds the admission items of a transport's requests.

    Args:
        rules: how requests are treated.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._has_warned = False

    def item_of(self, request: Any) -> tuple[RequestAdmissionItem, PreparedProfile] | None:
        """Return a request's admission item and its provider's profile; None if it needs no lease.

        Raises:
            ConfigurationError: the request names something that no key can hold.
        """
        rules = self.rules
        view = view_of(request)
        resource = rules.resolve(view)
        if resource is None:
            return None
        if in_executor.get():
            self._warn_of_retries(request)
        attempt_id = new_attempt_id()
        cost = None if view.body is None else rules.estimator.estimate(view.body)
        item = RequestAdmissionItem(
            resource=resource,
            group=current_group.get() or rules.group,
            attempt_id=attempt_id,
            queue_wait_timeout_seconds=rules.queue_wait_timeout_seconds,
            cost=cost,
            input_estimate=max(0, cost - output_bound(view.body)) if cost and view.body else None,
            event_context=captured_context(attempt_id),
        )
        return item, profile_for(view, resource)

    def _warn_of_retries(self, request: Any) -> None:
        if not self._has_warned and request.headers.get(_RETRY_HEADER, "0") != "0":
            self._has_warned = True
            log.warning(
                "retries_multiply",
                reason="the SDK retries within ModelRequestExecutor, which retries as well",
                remedy="make the SDK's client with max_retries=0",
            )


class AsyncAdmitted:
    """A transport on an event loop: each attempt is one lease.

    Args:
        lanes: give the transports that send the requests.
        admission: gives the controller.
        items: what is asked for each request.
    """

    body_class: ClassVar[Any]

    def __init__(self, lanes: Lanes, admission: AsyncAdmission, items: ItemBuilder) -> None:
        self._lanes = lanes
        self._admission = admission
        self._items = items
        self._owner = LoopOwner()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request under a lease, which its answer's body then holds.

        Raises:
            RequestAdmissionError: no lease was to be had; nothing was sent.
            CoordinatorError: the shared state could not be used; nothing was sent.
            ConfigurationError: the client is in use on another event loop.
            BaseException: whatever the inner transport raised, the same object.
        """
        self._move_to(asyncio.get_running_loop())
        asked = self._items.item_of(request)
        if (unused := self._lanes.unused()) is not None:
            await unused.aclose()
        if asked is None:
            return await self._send(Exchange(), request)
        item, profile = asked
        controller = await self._admission.ready(item.resource.provider_model)
        exchange = LeasedExchange(controller, item, self._items.rules, profile)
        observer = wait_observer_of(request)
        observer.begin(item.resource)
        try:
            await self._admission.enter(exchange.attempt, controller.caller)
        finally:
            observer.end()
        return await self._send(exchange, request)

    async def _send(self, exchange: Exchange, request: Any) -> Any:
        try:
            lane = exchange.before_sending(self._lanes)
            response = await lane.handle_async_request(request)
            exchange.answered(response)
        except BaseException as error:
            exchange.failed(error)
            exchange.closed()
            raise
        if response.is_closed:  # made in memory
            exchange.closed()
        else:
            exchange.opened()
            response.stream = self.body_class(response.stream, exchange)
            if exchange.needs_body:
                # What passes was noted below, so that nothing is noted above.
                response.stream = self.body_class(await read_ahead(response.stream), Exchange())
        exchange.advise(response)
        return response

    def handle_request(self, request: Any) -> Any:  # noqa: ARG002
        """Refuse a request of a client for threads."""
        raise _for_other_clients("Client", "AsyncClient", "with")

    def __enter__(self) -> NoReturn:
        raise _for_other_clients("Client", "AsyncClient", "with")

    async def aclose(self) -> None:
        """Close the inner transports, and the connection to the server if this made it."""
        self._move_to(asyncio.get_running_loop())
        try:
            for lane in self._lanes.close():
                await lane.aclose()
        finally:
            await self._admission.aclose()

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drop the connections of an earlier event loop, which has ended or is a parent's."""
        if loop is not self._loop:
            self._owner.refuse_two_loops(self._loop)
            if self._loop is not None:
                if self._owner.is_parent:
                    keep_untouched(self._lanes)
                self._lanes = self._lanes.anew()
            self._loop, self._owner = loop, LoopOwner()


class BlockingAdmitted:
    """A transport in threads; for the rest see `AsyncAdmitted`."""

    body_class: ClassVar[Any]

    def __init__(self, lanes: Lanes, admission: BlockingAdmission, items: ItemBuilder) -> None:
        self._lanes = lanes
        self._admission = admission
        self._items = items
        self._dropped = Dropped()
        self._process_id = os.getpid()

    def handle_request(self, request: Any) -> Any:
        """Send a request under a lease: `AsyncAdmitted.handle_async_request`."""
        self._move_to(os.getpid())
        self._dropped.close()
        asked = self._items.item_of(request)
        if (unused := self._lanes.unused()) is not None:
            unused.close()
        if asked is None:
            return self._send(Exchange(), request)
        item, profile = asked
        controller = self._admission.ready(item.resource.provider_model)
        exchange = LeasedExchange(controller, item, self._items.rules, profile)
        self._admission.enter(exchange.attempt, controller.caller)
        return self._send(exchange, request)

    def _send(self, exchange: Exchange, request: Any) -> Any:
        try:
            lane = exchange.before_sending(self._lanes)
            response = lane.handle_request(request)
            exchange.answered(response)
        except BaseException as error:
            exchange.failed(error)
            exchange.closed()
            raise
        if response.is_closed:  # made in memory
            exchange.closed()
        else:
            exchange.opened()
            response.stream = self.body_class(response.stream, exchange, self._dropped)
            if exchange.needs_body:
                ahead = read_ahead_blocking(response.stream)
                response.stream = self.body_class(ahead, Exchange(), self._dropped)
        exchange.advise(response)
        return response

    async def handle_async_request(self, request: Any) -> Any:  # noqa: ARG002
        """Refuse a request of a client on an event loop."""
        raise _for_other_clients("AsyncClient", "Client", "async with")

    async def __aenter__(self) -> NoReturn:
        raise _for_other_clients("AsyncClient", "Client", "async with")

    def close(self) -> None:
        """Close the inner transports, and the connection to the server if this made it."""
        self._move_to(os.getpid())
        try:
            self._dropped.close()
            for lane in self._lanes.close():
                lane.close()
        finally:
            self._admission.close()

    def _move_to(self, process_id: int) -> None:
        """Leave the connections to the parent in a forked child: two would read one answer."""
        if process_id != self._process_id:
            self._lanes, self._dropped = self._lanes.anew(), Dropped()
            self._process_id = process_id  # last: another thread must not send before that


def _for_other_clients(used_by: str, wanted: str, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"a transport was given to a {used_by}, expected a client of its own kind,"
        f" {'an' if wanted.startswith('A') else 'a'} {wanted}; make that, or connect with"
        f" `{how} forebay.connect(...)`."
    )
