"""Looking at request shards without changing them (design 02, *Requests*)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from forebay.contracts.checks import check_type
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.contracts.snapshots import (
    AuditReport,
    BudgetSnapshot,
    DomainSnapshot,
    GlobalSnapshot,
    MemberSnapshot,
    RegistrationSnapshot,
    WaitingGroupSnapshot,
)
from forebay.coordinator.keys import request_shard
from forebay.coordinator.server_connection import ServerConnection

MAX_ROWS: Final = 100
"""Rows of each list in a capture (``lua/requests/snapshot.lua``)."""
REQUEST_TAG: Final = "rq:"

_SAME_NAME: Final = (
    "is_used",
    "effective_max",
    "current_limit",
    "in_flight_count",
    "waiters",
    "consecutive_rate_limits",
    "algorithm",
    "ceiling",
    "is_trying",
    "outlook",
    "success_streak",
    "successes_needed",
    "cuts",
    "granted",
    "waiting_group_count",
)


class RequestPressureSnapshotProvider:
    """Shows request shards, each in one instant; writes nothing, not even the shard's clock.

    Every method raises CoordinatorError where the server could not be used.

    Args:
        connection: the process's connection to the server.
    """

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    async def snapshot(self, resource: RequestResourceKey) -> DomainSnapshot:
        """Return one domain's window; the lists of its groups are left empty."""
        check_type("resource", resource, RequestResourceKey)
        capture = await self._capture(resource.provider_model, max_rows=0)
        return capture.domains[resource.domain]

    async def snapshots(self) -> dict[RequestResourceKey, DomainSnapshot]:
        """Return every window in use, each shard in an instant of its own."""
        return {
            domain.resource: domain
            for shard in (await self.global_snapshots()).values()
            for domain in shard.domains.values()
            if domain.is_used
        }

    async def global_snapshot(
        self, provider_model: ProviderModelKey, *, max_rows: int = MAX_ROWS
    ) -> GlobalSnapshot:
        """Return a provider/model; zeros for one that no member registered.

        Args:
            provider_model: which one.
            max_rows: of each list of members, registrations and groups, 0..100.
        """
        return await self._capture(provider_model, max_rows=max_rows)

    async def global_snapshots(self) -> dict[ProviderModelKey, GlobalSnapshot]:
        """Return every provider/model that any member ever joined."""
        return {key: await self.global_snapshot(key) for key in await self.used()}

    async def used(self) -> list[ProviderModelKey]:
        """Return which provider/models any member ever joined."""
        tags = await self._connection.shards()
        return [key for tag in tags if (key := provider_model_of(tag))]

    async def audit(self, provider_model: ProviderModelKey) -> AuditReport:
        """Work out a shard's books from its leases, waiters and registrations, and compare."""
        keys = request_shard(provider_model).all
        return decode_audit(await self._connection.read("requests/audit", keys, ["json"]))

    async def _capture(self, provider_model: ProviderModelKey, *, max_rows: int) -> GlobalSnapshot:
        check_type("provider_model", provider_model, ProviderModelKey)
        keys = request_shard(provider_model).all
        reply = await self._connection.read("requests/snapshot", keys, [max_rows])
        return decode_capture(provider_model, reply)


def _budget(row: dict[str, Any]) -> BudgetSnapshot:
    return BudgetSnapshot(
        budget=row["budget"],
        limit=row["limit"],
        burst=row["burst"],
        level=float(row["level"]),
        registered=row["registered"] or None,
        learned=row["learned"] or None,
    )


def provider_model_of(tag: str) -> ProviderModelKey | None:
    """Return the provider/model of a shard's tag, None for a tag of another kind."""
    provider, _, model = tag.removeprefix(REQUEST_TAG).partition("/")
    if not tag.startswith(REQUEST_TAG):
        return None
    try:
        return ProviderModelKey(provider_name=unquote(provider), model_id=unquote(model))
    except ConfigurationError:
        return None  # another program wrote it into the index


def decode_audit(reply: bytes) -> AuditReport:
    """Return the reply of ``lua/requests/audit.lua`` as a value."""
    # What differs may be damaged, so bytes that are no text are shown instead of refused.
    found = json.loads(reply.decode(errors="backslashreplace"))
    return AuditReport(
        ok=found["difference_count"] == 0,
        is_complete=found["is_complete"],
        difference_count=found["difference_count"],
        differences=tuple(found["differences"]),
    )


def decode_capture(provider_model: ProviderModelKey, reply: bytes) -> GlobalSnapshot:
    """Return the reply of ``lua/requests/snapshot.lua`` as a value, names decoded."""
    capture = json.loads(reply)
    registrations = tuple(
        RegistrationSnapshot(
            alias=unquote(row["alias"]), member_id=row["member_id"], cap=row["cap"]
        )
        for row in capture["registrations"]
    )
    raw_caps: dict[str, int] = {}
    for row in registrations:
        raw_caps.setdefault(row.alias, row.cap)  # the smallest come first
    return GlobalSnapshot(
        captured_at=_seconds(capture["captured_us"]),
        sequence=capture["sequence"],
        provider_model=provider_model,
        generation=capture.get("generation"),
        virtual_time=capture["virtual_time"],
        static_cap=capture["static_cap"],
        override_cap=capture["override_cap"] or None,
        aggregate_in_flight=capture["in_flight"],
        aggregate_active_lease_count=capture["leases"] - capture["overdue_leases"],
        waiters=capture["waiters"],
        aliases=tuple(sorted(raw_caps)),
        raw_caps=raw_caps,
        registration_count=capture["registration_count"],
        registrations=registrations,
        member_count=capture["member_count"],
        overdue_member_count=capture["overdue_members"],
        members=tuple(
            MemberSnapshot(
                member_id=row["member_id"],
                **_process(row["process"]),
                expires_in_seconds=_seconds(row["expires_in_us"]),
                lease_count=row["lease_count"],
                waiters=row["waiters"],
            )
            for row in capture["members"]
        ),
        budgets=tuple(map(_budget, capture["budgets"])),
        fair_by="tokens" if capture["token_fair"] else "requests",
        domains={
            domain: _decode_domain(
                RequestResourceKey(provider_model=provider_model, domain=domain),
                capture,
                capture["domains"][domain],
            )
            for domain in RequestDomain
        },
        leak_diagnostics=_nonzero(
            overdue_leases=capture["overdue_leases"],
            overdue_holds=capture["overdue_holds"],
            uncounted_leases=capture["leases"] - capture["in_flight"],
        ),
    )


def _decode_domain(
    resource: RequestResourceKey, capture: Mapping[str, Any], window: Mapping[str, Any]
) -> DomainSnapshot:
    cooldown_seconds = _seconds(window["cooldown_us"])
    return DomainSnapshot(
        captured_at=_seconds(capture["captured_us"]),
        sequence=capture["sequence"],
        resource=resource,
        active_lease_count=window["in_flight_count"] - window["overdue_leases"],
        blocked_until=_seconds(window["blocked_until_us"]) if cooldown_seconds else None,
        cooldown_remaining_seconds=cooldown_seconds,
        rate_limit_ceiling=window["rate_limit_ceiling"] or None,
        quiet_until=_seconds(window["quiet_until_us"]) if _seconds(window["quiet_us"]) else None,
        blocked_for=window["quota_name"] or None if cooldown_seconds else None,
        token_factor=float(window["token_factor"]),
        minute_budget=window["minute"]["budget"] or None,
        minute_served=window["minute"]["served"],
        minute_ends_at=_seconds(window["minute"]["ends_us"]) or None,
        last_outcome=window["last_outcome"] or None,
        outcomes={kind: window["outcomes"][kind] for kind in RequestOutcomeKind},
        waiting_groups=tuple(
            WaitingGroupSnapshot(**row | {"group": unquote(row["group"])})
            for row in window["waiting_groups"]
        ),
        leak_diagnostics=_nonzero(overdue_leases=window["overdue_leases"]),
        **{name: window[name] for name in _SAME_NAME},
    )


def _process(words: Sequence[str]) -> dict[str, Any]:
    """Return a member's process: host, pid, program, version and join time."""
    host, pid, program, version, since_us = words
    if since_us == "0":
        return dict.fromkeys(("host", "pid", "program", "version", "since"))
    return {
        "host": unquote(host),
        "pid": int(pid),
        "program": unquote(program),
        "version": unquote(version),
        "since": _seconds(since_us),
    }


def _seconds(microseconds: str) -> float:
    return int(microseconds) / 1e6


def _nonzero(**counts: int) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
