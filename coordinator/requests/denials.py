"""Sentences and errors for denied acquires (design 02, *Requests*; design 03)."""

from __future__ import annotations

from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestDenialReason,
)


def denial(denied: RequestAdmissionDenied) -> RequestAdmissionError:
    """Return the error that an acquire raises for a denial."""
    return RequestAdmissionError(denied, denial_message(denied))


def shut_down(item: RequestAdmissionItem) -> RequestAdmissionDenied:
    """Return the denial for an item whose controller or loop has ended."""
    return RequestAdmissionDenied(item=item, reason=RequestDenialReason.SHUTDOWN)


def timed_out(item: RequestAdmissionItem) -> RequestAdmissionDenied:
    """Return the denial for an item whose wait has timed out."""
    return RequestAdmissionDenied(item=item, reason=RequestDenialReason.QUEUE_TIMEOUT)


def denial_message(denied: RequestAdmissionDenied) -> str:
    """Return one sentence for a denial: the resource, the reason and the remedy."""
    resource = denied.item.resource
    match denied.reason:
        case RequestDenialReason.HARD_POLICY_DENIAL if denied.diagnostics:
            return (
                f"a cost of {denied.item.cost} tokens never fits the burst of"
                f" {denied.diagnostics['budget']} of {resource}; split the request, lower its"
                " estimate, or register a larger budget."
            )
        case RequestDenialReason.HARD_POLICY_DENIAL:
            return (
                f"{resource} is not registered, so nothing may be sent to it; call"
                " register(provider_model, alias, max_parallel_requests) first, or give the"
                " transport max_parallel_requests=, which registers what it meets."
            )
        case RequestDenialReason.QUEUE_TIMEOUT:
            return _timeout_message(denied)
        case RequestDenialReason.SHUTDOWN:
            return f"the controller was closed, so there is no lease for {resource}; connect anew."
        case _:
            return f"no lease for {resource}: {denied.reason}; use acquire() to wait for one."


def _timeout_message(denied: RequestAdmissionDenied) -> str:
    waited = denied.item.queue_wait_timeout_seconds
    within = "its resource's default wait" if waited is None else f"{waited:g} s"
    budget = denied.diagnostics.get("budget")
    if budget is None:
        why, remedy = "", "the cap, or the group's weight"
    else:
        draw = f"{denied.item.cost} tokens" if "tokens" in budget else "one more request"
        why = f": its quota {budget} has no room for {draw} yet"
        remedy = "or the quota, if the account has more"
    return (
        f"no lease for {denied.item.resource} within {within}{why}; raise"
        f" queue_wait_timeout_seconds, {remedy}."
    )
