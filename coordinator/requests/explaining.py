"""Why a waiter, a lease, a group or a provider/model does not move.

Sentences of what ``lua/requests/explain.lua`` reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from forebay.contracts.explanations import (
    Explanation,
    Reason,
    SubjectKind,
    counted,
    number,
    ordinal,
    some,
    span,
)
from forebay.contracts.identity import ProviderModelKey, RequestDomain
from forebay.contracts.snapshots import DomainSnapshot, GlobalSnapshot
from forebay.coordinator.keys import encode, request_shard
from forebay.coordinator.requests.snapshots import MAX_ROWS, decode_capture
from forebay.coordinator.server_connection import ServerConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """One instant of a request shard, as ``lua/requests/explain.lua`` reads it.

    Attributes:
        snapshot: the shard.
        capture: the whole reply.
    """

    snapshot: GlobalSnapshot
    capture: Mapping[str, Any]

    @property
    def now(self) -> float:
        """Server time in seconds."""
        return self.snapshot.captured_at

    def held(self, domain: str) -> Mapping[str, Any]:
        """Return the leases of a domain: how many by group, and the oldest."""
        empty: Mapping[str, Any] = {"groups": {}, "oldest": []}
        found: dict[str, Mapping[str, Any]] = dict(self.capture["held"])
        return found.get(domain, empty)


async def read_facts(
    reader: ServerConnection, provider_model: ProviderModelKey, name: str | None = None
) -> ShardFacts:
    """Read one instant of a shard and of its subjects of a name; writes nothing.

    Raises:
        CoordinatorError: the server could not be used, or the shard is damaged.
    """
    subjects = [] if name is None else [name, *([encode(name)] if encode(name) != name else [])]
    keys = request_shard(provider_model).all
    reply = await reader.read("requests/explain", keys, [MAX_ROWS, *subjects])
    return decode_facts(provider_model, reply)


def decode_facts(provider_model: ProviderModelKey, reply: bytes) -> ShardFacts:
    """Decode a reply of ``lua/requests/explain.lua``; pure."""
    return ShardFacts(snapshot=decode_capture(provider_model, reply), capture=json.loads(reply))


def explain_in_shard(facts: ShardFacts, name: str) -> list[Explanation]:
    """Explain the waiter, lease or group of a shard that has a name, or the shard itself; pure."""
    found: list[Explanation] = []
    key = facts.snapshot.provider_model

    def add(kind: SubjectKind, reasons: Sequence[Reason]) -> None:
        found.append(
            Explanation(
                kind=kind,
                name=name,
                shard=request_shard(key).tag,
                captured_at=facts.now,
                reasons=tuple(reasons),
            )
        )

    if facts.snapshot.generation is None:
        return found
    if waiter := facts.capture.get("waiter"):
        add("waiter", _of_waiter(facts, waiter))
    if lease := facts.capture.get("lease"):
        add("lease", [_of_lease(facts, lease)])
    if group := facts.capture.get("group"):
        add("request_group", _of_group(facts, group))
    if name in {str(key), key.provider_name, key.model_id, request_shard(key).tag}:
        add("provider_model", _of_shard(facts))
    return found


def closed(facts: ShardFacts, domain: str) -> list[Reason]:
    """Return why a domain grants nothing now; empty where it is open; pure."""
    window = facts.snapshot.domains[RequestDomain(domain)]
    reasons = []
    if until := int(facts.capture["recovering_us"]) / 1e6:
        says = (
            "The shard is being rebuilt from what its members state, and grants nothing until that"
            f" is over, in {span(until - facts.now)} at most."
        )
        reasons.append(Reason(code="recovering", says=says, until=until))
    if window.blocked_until is not None:
        reasons.append(_cooling(window, domain))
    if window.in_flight_count >= min(window.current_limit, window.effective_max):
        reasons.append(_full(facts, window, domain))
    elif 0 < facts.snapshot.static_cap <= facts.snapshot.aggregate_in_flight:
        reasons.append(_at_cap(facts))
    if ends_us := dict(facts.capture["minute_ends"]).get(domain):
        until = int(ends_us) / 1e6
        says = (
            f"{domain} lets its calls end: they use up the about {window.minute_budget} calls that"
            f" the provider serves in a minute, which ends in {span(until - facts.now)}."
        )
        reasons.append(Reason(code="minute_used_up", says=says, until=until))
    return reasons


def _cooling(window: DomainSnapshot, domain: str) -> Reason:
    left = span(window.cooldown_remaining_seconds)
    row = number(window.consecutive_rate_limits, "time")
    why = f"it refused {row} in a row"
    if window.blocked_for:
        why = f"its refusal named the budget {window.blocked_for}"
    says = (
        f"{domain} cools down for {left} more, until {_instant(window.blocked_until)}: the provider"
        f" said that it has no room ({why})."
    )
    return Reason(code="cooldown", says=says, until=window.blocked_until)


def _instant(at: float | None) -> str:
    return f"{datetime.fromtimestamp(at or 0.0, UTC):%H:%M:%S} UTC"


def _full(facts: ShardFacts, window: DomainSnapshot, domain: str) -> Reason:
    held = facts.held(domain)
    limit = min(window.current_limit, window.effective_max)
    says = (
        f"The window of {domain} lets {number(limit, 'call')} go at once (at most"
        f" {window.effective_max}), and {window.in_flight_count}"
        f" {'is' if window.in_flight_count == 1 else 'are'} in flight."
    )
    says += _oldest(facts, held["oldest"])
    says += f" A place comes free when one ends; the window itself {window.outlook}."
    holders = tuple(unquote(lease["id"]) for lease in held["oldest"])
    return Reason(code="window_full", says=says, resource=domain, holders=holders)


def _oldest(facts: ShardFacts, leases: Sequence[Mapping[str, Any]]) -> str:
    shown = [
        f"{unquote(lease['group'])} on {lease['member_id']} for"
        f" {span(facts.now - int(lease['acquired_us']) / 1e6)}"
        for lease in leases
    ]
    return f" The oldest leases: {some(shown)}." if shown else ""


def _at_cap(facts: ShardFacts) -> Reason:
    shard = facts.snapshot
    by = [
        f"{window.in_flight_count} {domain}"
        for domain, window in shard.domains.items()
        if window.in_flight_count
    ]
    whose = " (an operator's)" if shard.override_cap == shard.static_cap else ""
    says = (
        f"The cap {shard.static_cap}{whose} of all domains together is reached: {some(by)} in"
        " flight. A place comes free when one ends, or when the cap rises (forebay set-cap)."
    )
    return Reason(code="cap_reached", says=says, resource=str(shard.provider_model))


def _of_waiter(facts: ShardFacts, waiter: Mapping[str, Any]) -> list[Reason]:
    domain, group = waiter["domain"], unquote(waiter["group"])
    place, ahead = facts.capture["group_of_waiter"], int(waiter["ahead"])
    reasons = []
    if waiter["is_aside"]:
        says = (
            f"It stands aside, in no line: its member {waiter['member_id']} was not heard of; it"
            " takes its old place with that member's next call, or ends with its membership."
        )
        reasons.append(Reason(code="member_silent", says=says, holders=(waiter["member_id"],)))
    else:
        of, weight = dict(place["domains"]).get(domain, {}), f"{place['weight']:g}"
        says = f"{ahead} of its group {group} (weight {weight}) wait before it in {domain}"
        if of:
            says += f", and {of['rank']} of {number(of['groups'], 'group')} stand before its group"
        reasons.append(Reason(code="in_line", says=f"{says}."))
    reasons += closed(facts, domain)
    if waiter["lacks"]:
        until = int(waiter["lacks_until_us"]) / 1e6
        says = (
            f"It lacks room in the quota {waiter['lacks']} for {span(until - facts.now)} more, and"
            " keeps what comes free of it."
        )
        reasons.append(Reason(code="quota", says=says, resource=waiter["lacks"], until=until))
    if len(reasons) == 1 and not waiter["is_aside"]:
        says = "Its domain is open: it is granted in its turn, with the next call on the shard."
        reasons.append(Reason(code="may_go", says=says))
    if waiter["deadline_us"]:
        until = int(waiter["deadline_us"]) / 1e6
        says = f"It gives up in {span(until - facts.now)} (queue_timeout)."
        reasons.append(Reason(code="deadline", says=says, until=until))
    return reasons


def _of_lease(facts: ShardFacts, lease: Mapping[str, Any]) -> Reason:
    member, age = lease["member_id"], span(facts.now - int(lease["acquired_us"]) / 1e6)
    left_us = lease["expires_in_us"]
    says = f"Member {member} has held it for {age}, for group {unquote(lease['group'])}"
    if left_us == "" or int(left_us) <= 0:
        says += "; that member's heartbeat is overdue: the next call on the shard ends the lease."
        return Reason(code="member_overdue", says=says, holders=(member,))
    left = int(left_us) / 1e6
    says += f"; it ends when its call does, or in {span(left)} without a heartbeat."
    return Reason(code="held", says=says, holders=(member,), until=facts.now + left)


def _of_group(facts: ShardFacts, group: Mapping[str, Any]) -> list[Reason]:
    name = group["group"]
    held = {
        domain: count
        for domain in RequestDomain
        if (count := dict(facts.held(domain)["groups"]).get(name, 0))
    }
    waits = dict(group["domains"])
    inside = some([f"{count} in {domain}" for domain, count in held.items()]) or "none"
    says = f"It has weight {group['weight']:g}; calls in flight: {inside}."
    reasons = [Reason(code="weight", says=says)]
    if not waits:
        reasons.append(Reason(code="not_in_line", says="Nothing of it waits."))
    for domain, place in waits.items():
        says = (
            f"{counted(place['waiting'], 'call', 'wait')} in {domain}; it is the"
            f" {ordinal(int(place['rank']) + 1)} of {number(place['groups'], 'group')} there."
        )
        reasons.append(Reason(code="in_line", says=says))
        reasons += closed(facts, domain)
    return reasons


def _of_shard(facts: ShardFacts) -> list[Reason]:
    shard = facts.snapshot
    says = (
        f"Cap {shard.static_cap}, {shard.aggregate_in_flight} in flight, {shard.waiters} wait,"
        f" {number(shard.member_count, 'member')} of which {shard.overdue_member_count} overdue."
    )
    reasons = [Reason(code="shard", says=says)]
    if not shard.static_cap:
        says = "No live member has registered the provider/model: every call is refused at once."
        reasons.append(Reason(code="not_registered", says=says))
    for domain, window in shard.domains.items():
        if not window.is_used:
            continue
        says = (
            f"{domain}: window {window.current_limit} of at most {window.effective_max},"
            f" {window.in_flight_count} in flight, {window.waiters} wait;"
            f"{_last_move(facts, domain)} it {window.outlook}."
        )
        reasons.append(Reason(code="window", says=says, resource=domain))
        if window.waiters:
            reasons += closed(facts, domain) or [_open(domain)]
    for quota in shard.budgets:
        if quota.level <= 0:
            says = f"The quota {quota.budget} of {quota.limit} is used up."
            reasons.append(Reason(code="quota", says=says, resource=quota.budget))
    return reasons


def _last_move(facts: ShardFacts, domain: str) -> str:
    move = dict(facts.capture["moves"]).get(domain)
    if not move:
        return ""
    ago = span(facts.now - int(move["at_us"]) / 1e6)
    return f" {ago} ago it went from {move['from']} to {move['to']} ({move['reason']});"


def _open(domain: str) -> Reason:
    says = f"{domain} is open: what waits lacks a quota, or is granted with the next call."
    return Reason(code="may_go", says=says)
