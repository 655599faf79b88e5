"""Events of one attempt: its wait, its lease and its call (design 07, *Two streams*)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from forebay.contracts.event_kinds import RequestEventKind as Kind
from forebay.contracts.events import EventStream, EventSubject, current_correlation
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.outcomes import ReleaseResult, RequestReleaseOutcome
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.coordinator.event_outlet import EventOutlet, ShardClock, ShardInstant

ERROR: Final = "error"
"""Reason of a wait that ended because the server could not be used."""


class RequestEvents:
    """Gives the events of attempts to the sinks of this process, if any takes them.

    Args:
        outlet: of this process.
        clock_of: returns what tells the instant of a provider/model's shard.
    """

    def __init__(
        self, outlet: EventOutlet, clock_of: Callable[[ProviderModelKey], ShardClock]
    ) -> None:
        self._outlet = outlet
        self._clock_of = clock_of
        self._leased: dict[str, tuple[EventSubject, ShardClock]] = {}  # by lease id
        self._called_at: dict[str, float] = {}

    async def of_wait(
        self, item: RequestAdmissionItem, decided: Awaitable[RequestAdmissionDecision]
    ) -> RequestAdmissionDecision:
        """Await a decision; emit the begin and end of the wait, and the decision."""
        subject, clock = _subject_of(item), self._clock_of(item.resource.provider_model)
        emit = self._outlet.emit
        began = time.monotonic()
        asked: dict[str, Any] = {"weight": item.group.weight}
        if item.cost is not None:
            asked["cost"] = item.cost
        emit(Kind.REQUEST_WAIT_STARTED, subject, clock(), diagnostics=asked)
        try:
            decision = await decided
        except asyncio.CancelledError:
            self._end_wait(
                Kind.REQUEST_WAIT_CANCELLED, item, subject, began, RequestDenialReason.CANCELLATION
            )
            raise
        except Exception as error:
            details = {"error_type": type(error).__qualname__}
            instant = self._end_wait(Kind.REQUEST_WAIT_COMPLETED, item, subject, began, ERROR)
            emit(Kind.REQUEST_ACQUIRE_DENIED, subject, instant, reason=ERROR, diagnostics=details)
            raise
        if isinstance(decision, RequestAdmissionLease):
            self._emit_granted(decision, subject, began)
        else:
            reason = decision.reason
            is_late = reason is RequestDenialReason.QUEUE_TIMEOUT
            end = Kind.REQUEST_WAIT_TIMEOUT if is_late else Kind.REQUEST_WAIT_COMPLETED
            instant = self._end_wait(end, item, subject, began, reason)
            emit(Kind.REQUEST_ACQUIRE_DENIED, subject, instant, reason=str(reason))
        return decision

    def call_started(self, lease: RequestAdmissionLease) -> None:
        """Emit, from any thread, that an attempt's bytes are sent now."""
        if self._outlet.takes_requests:
            lease_id = lease.lease_id
            leased = self._leased.get(lease_id)
            if leased is None:  # granted by another controller
                leased = self._leased[lease_id] = self._of_lease(lease)
            subject, clock = leased
            self._called_at[lease_id] = time.monotonic()
            self._outlet.emit(Kind.MODEL_REQUEST_STARTED, subject, clock(), lease_id=lease_id)

    def lost(self, lease: RequestAdmissionLease) -> None:
        """Forget a lease that ended without being released, unless a call runs under it."""
        if lease.lease_id not in self._called_at:
            self._leased.pop(lease.lease_id, None)

    def released(
        self,
        lease: RequestAdmissionLease,
        outcome: RequestReleaseOutcome,
        result: asyncio.Future[ReleaseResult],
    ) -> None:
        """Emit the end of a call at once, and of its lease when the release is acknowledged."""
        if not self._outlet.takes_requests:
            return
        lease_id, reason = lease.lease_id, str(outcome.kind)
        leased = self._leased.pop(lease_id, None)
        subject, clock = self._of_lease(lease) if leased is None else leased
        called_at = self._called_at.pop(lease_id, None)
        emit = self._outlet.emit
        if called_at is not None:
            details = _details_of(outcome)
            details["call_seconds"] = time.monotonic() - called_at
            emit(
                Kind.MODEL_REQUEST_COMPLETED,
                subject,
                clock(),
                lease_id=lease_id,
                reason=reason,
                diagnostics=details,
            )

        def acknowledged(done: asyncio.Future[ReleaseResult]) -> None:
            if not done.cancelled() and done.exception() is None:
                emit(
                    Kind.REQUEST_LEASE_RELEASED,
                    subject,
                    clock(),
                    lease_id=lease_id,
                    reason=reason,
                    diagnostics={"release": str(done.result().reason)},
                )

        result.add_done_callback(acknowledged)

    def _of_lease(self, lease: RequestAdmissionLease) -> tuple[EventSubject, ShardClock]:
        item = lease.item
        return _subject_of(item), self._clock_of(item.resource.provider_model)

    def _emit_granted(
        self, lease: RequestAdmissionLease, subject: EventSubject, began: float
    ) -> None:
        clock, lease_id = self._clock_of(lease.item.resource.provider_model), lease.lease_id
        self._leased[lease_id] = subject, clock
        _, sequence = clock()
        instant = lease.acquired_at, sequence
        waited = {"wait_seconds": time.monotonic() - began}
        emit = self._outlet.emit
        emit(Kind.REQUEST_WAIT_COMPLETED, subject, instant, reason="granted", diagnostics=waited)
        emit(
            Kind.REQUEST_LEASE_ACQUIRED,
            subject,
            instant,
            lease_id=lease_id,
            snapshot={
                "limit_at_admission": lease.limit_at_admission,
                "effective_max": lease.effective_max,
                "cuts_at_admission": lease.cuts_at_admission,
            },
            diagnostics={"member_id": lease.member_id, "degraded": lease.degraded},
        )

    def _end_wait(
        self,
        kind: Kind,
        item: RequestAdmissionItem,
        subject: EventSubject,
        began: float,
        reason: str,
    ) -> ShardInstant:
        waited = {"wait_seconds": time.monotonic() - began}
        instant = self._clock_of(item.resource.provider_model)()
        self._outlet.emit(kind, subject, instant, reason=str(reason), diagnostics=waited)
        return instant


def _subject_of(item: RequestAdmissionItem) -> EventSubject:
    """Return the subject of an attempt's events, with the current correlation."""
    context = item.event_context
    if context is None:
        correlation = current_correlation.get()
        execution_id = correlation.task_execution_id if correlation else None
    else:
        correlation, execution_id = context.captured_correlation, context.task_execution_id
    return EventSubject(
        stream=EventStream.REQUEST,
        correlation=correlation,
        task_execution_id=execution_id,
        request_attempt_id=item.attempt_id,
        request_resource_key=item.resource,
        request_group_key=item.group.key,
    )


def _details_of(outcome: RequestReleaseOutcome) -> dict[str, Any]:
    """Return status and usage of an outcome; its own diagnostics may hold foreign text."""
    details: dict[str, Any] = {}
    if outcome.provider_status is not None:
        details["provider_status"] = outcome.provider_status
    if outcome.usage is not None:
        details["input_tokens"] = outcome.usage.input_tokens
        details["output_tokens"] = outcome.usage.output_tokens
    return details
