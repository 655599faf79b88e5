"""Events of one attempt: its wait, its lease and its call (design 07, *Two streams*)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from forebay.contracts.event_kinds import RequestEventKind as Kind
from forebay.contracts.events import current_correlation
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.outcomes import ReleaseResult, RequestReleaseOutcome
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.coordinator.event_outlet import EventOutlet

ERROR: Final = "error"
"""Reason of a wait that ended because the server could not be used."""


class RequestEvents:
    """Gives the events of attempts to the sinks of this process, if any takes them.

    Args:
        outlet: of this process.
        server_now_us: returns about the time of a provider/model's shard; None where no reply has
            come yet.
    """

    def __init__(
        self, outlet: EventOutlet, server_now_us: Callable[[ProviderModelKey], int | None]
    ) -> None:
        self._outlet = outlet
        self._server_now_us = server_now_us
        self._called: dict[str, tuple[float, dict[str, Any]]] = {}  # since when, and its fields

    async def of_wait(
        self, item: RequestAdmissionItem, decided: Awaitable[RequestAdmissionDecision]
    ) -> RequestAdmissionDecision:
        """Await a decision; emit the begin and end of the wait, and the decision."""
        fields = _fields_of(item)
        began = time.monotonic()
        asked: dict[str, Any] = {"weight": item.group.weight}
        if item.cost is not None:
            asked["cost"] = item.cost
        self._emit(Kind.REQUEST_WAIT_STARTED, item, fields, diagnostics=asked)
        try:
            decision = await decided
        except asyncio.CancelledError:
            reason = RequestDenialReason.CANCELLATION
            self._end_wait(Kind.REQUEST_WAIT_CANCELLED, item, fields, began, reason)
            raise
        except Exception as error:
            self._end_wait(Kind.REQUEST_WAIT_COMPLETED, item, fields, began, ERROR)
            details = {"error_type": type(error).__qualname__}
            self._emit(
                Kind.REQUEST_ACQUIRE_DENIED,
                item,
                fields,
                reason_or_outcome=ERROR,
                diagnostics=details,
            )
            raise
        if isinstance(decision, RequestAdmissionLease):
            self._emit_granted(decision, fields, began)
        else:
            is_late = decision.reason is RequestDenialReason.QUEUE_TIMEOUT
            end = Kind.REQUEST_WAIT_TIMEOUT if is_late else Kind.REQUEST_WAIT_COMPLETED
            self._end_wait(end, item, fields, began, decision.reason)
            self._emit(
                Kind.REQUEST_ACQUIRE_DENIED, item, fields, reason_or_outcome=decision.reason.value
            )
        return decision

    def call_started(self, lease: RequestAdmissionLease) -> None:
        """Emit, from any thread, that an attempt's bytes are sent now."""
        if self._outlet.takes_requests:
            fields = _fields_of_lease(lease)
            self._called[lease.lease_id] = time.monotonic(), fields
            self._emit(Kind.MODEL_REQUEST_STARTED, lease.item, fields)

    def released(
        self,
        lease: RequestAdmissionLease,
        outcome: RequestReleaseOutcome,
        result: asyncio.Future[ReleaseResult],
    ) -> None:
        """Emit the end of a call at once, and of its lease when the release is acknowledged."""
        if not self._outlet.takes_requests:
            return
        called_at, fields = self._called.pop(lease.lease_id, None) or (
            None,
            _fields_of_lease(lease),
        )
        if called_at is not None:
            self._emit(
                Kind.MODEL_REQUEST_COMPLETED,
                lease.item,
                fields,
                reason_or_outcome=outcome.kind.value,
                diagnostics={**_details_of(outcome), "call_seconds": time.monotonic() - called_at},
            )

        def acknowledged(done: asyncio.Future[ReleaseResult]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._emit(
                    Kind.REQUEST_LEASE_RELEASED,
                    lease.item,
                    fields,
                    reason_or_outcome=outcome.kind.value,
                    diagnostics={"release": done.result().reason.value},
                )

        result.add_done_callback(acknowledged)

    def _emit_granted(
        self, lease: RequestAdmissionLease, fields: dict[str, Any], began: float
    ) -> None:
        at_us = round(lease.acquired_at * 1e6)
        self._end_wait(Kind.REQUEST_WAIT_COMPLETED, lease.item, fields, began, "granted", at_us)
        self._outlet.emit_request(
            Kind.REQUEST_LEASE_ACQUIRED,
            at_us,
            **fields,
            request_lease_id=lease.lease_id,
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
        fields: dict[str, Any],
        began: float,
        reason: str,
        at_us: int | None = None,
    ) -> None:
        if at_us is None:
            at_us = self._server_now_us(item.resource.provider_model)
        self._outlet.emit_request(
            kind,
            at_us,
            **fields,
            reason_or_outcome=str(reason),
            diagnostics={"wait_seconds": time.monotonic() - began},
        )

    def _emit(
        self, kind: Kind, item: RequestAdmissionItem, fields: dict[str, Any], **more: Any
    ) -> None:
        at_us = self._server_now_us(item.resource.provider_model)
        self._outlet.emit_request(kind, at_us, **fields, **more)


def _fields_of(item: RequestAdmissionItem) -> dict[str, Any]:
    """Return the fields common to an attempt's events, with the current correlation."""
    context = item.event_context
    if context is None:
        correlation = current_correlation.get()
        execution_id = correlation.task_execution_id if correlation else None
    else:
        correlation, execution_id = context.captured_correlation, context.task_execution_id
    return {
        "correlation": correlation,
        "task_execution_id": execution_id,
        "request_attempt_id": item.attempt_id,
        "request_resource_key": item.resource,
        "request_group_key": item.group.key,
    }


def _fields_of_lease(lease: RequestAdmissionLease) -> dict[str, Any]:
    fields = _fields_of(lease.item)
    fields["request_lease_id"] = lease.lease_id
    return fields


def _details_of(outcome: RequestReleaseOutcome) -> dict[str, Any]:
    """Return status and usage of an outcome; its own diagnostics may hold foreign text."""
    details: dict[str, Any] = {}
    if outcome.provider_status is not None:
        details["provider_status"] = outcome.provider_status
    if outcome.usage is not None:
        details["input_tokens"] = outcome.usage.input_tokens
        details["output_tokens"] = outcome.usage.output_tokens
    return details
