"""Snapshots and audits of request shards (design 02, *Requests*; design 07, *redis-cli*).

One capture is one instant: every value of a snapshot was read by one script. Lists are bounded;
each comes with the count of all its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from forebay.contracts.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.contracts.quotas import QuotaBudget


class Snapshot(BaseModel):
    """Base of all snapshots: immutable, unknown fields refused, round trip to JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WaitingGroupSnapshot(Snapshot):
    """A request group with waiters in one domain.

    Attributes:
        group: its name.
        weight: its share relative to the others.
        tag: its place in virtual time; the smallest goes first.
        waiting: its waiters in this domain.
    """

    group: str
    weight: float
    tag: float
    waiting: int


class MemberSnapshot(Snapshot):
    """A process that takes part in the shard.

    Attributes:
        member_id: its name.
        host: the machine that its process runs on; None, as the next four, where a rebuild of the
            shard found the member and it has not joined again.
        pid: of its process.
        program: what was started, without its folder and arguments.
        version: of Forebay.
        since: when it joined, in server seconds.
        expires_in_seconds: until its heartbeat is overdue; 0 or less: it is, and the next operation
            on the shard ends what it holds.
        lease_count: leases it holds.
        waiters: its attempts that wait.
    """

    member_id: str
    host: str | None
    pid: int | None
    program: str | None
    version: str | None
    since: float | None
    expires_in_seconds: float
    lease_count: int
    waiters: int


class RegistrationSnapshot(Snapshot):
    """A cap that a member registered under an alias."""

    alias: str
    member_id: str
    cap: int


class DomainSnapshot(Snapshot):
    """One domain's window at one instant.

    Attributes:
        captured_at: server time of the shard, in seconds.
        sequence: number of the shard's last event.
        resource: the provider/model and domain.
        is_used: whether the window was born; if not, the values are those that the first acquire
            would find, or zeros where nobody has registered.
        effective_max: the window's ceiling by caps and clamps.
        current_limit: the window, its startup ramp applied.
        in_flight_count: leases as admission counts them.
        active_lease_count: those whose member's heartbeat is not overdue.
        waiters: attempts in the queue.
        blocked_until: end of the cooldown, in server seconds; None when not cooling down.
        cooldown_remaining_seconds: the same, from ``captured_at``; 0 when not cooling down.
        algorithm: the rule by which the window moves, ``steady`` or ``aimd``.
        rate_limit_ceiling: the noted ceiling: of ``steady`` what was served before, of ``aimd`` the
            limit at which the first cut was made; None when none is noted.
        ceiling: what a window that fell returns to: the noted ceiling, else ``effective_max``.
        is_trying: whether ``steady`` has gone beyond what was served, which a round confirms.
        quiet_until: until when a provider's hint stops tries and returns of ``steady``, in server
            seconds; None where none does.
        outlook: what the window does next, in words for people; they may change.
        blocked_for: the budget that a provider's refusal named and that the window waits for until
            ``blocked_until``, as ``tokens_per_day``; None where it waits for none.
        token_factor: real input tokens to one estimated, as learned from usage, 0.25 to 4.
        minute_budget: how many calls the provider serves in a minute of its clock, as ``steady``
            learned; None where it learned of no such budget.
        minute_served: how many were served in the present minute; 0 without a budget.
        minute_ends_at: when that minute ends, in server seconds; None without a budget.
        consecutive_rate_limits: rate limits in a row.
        last_outcome: how the last lease ended; None before the first.
        success_streak: successes since the window last grew; of ``steady`` those of a full window
            at its ceiling.
        successes_needed: how many of them the next growth takes.
        cuts: how often the window was cut.
        granted: leases ever granted.
        outcomes: leases ever ended, by outcome.
        waiting_group_count: groups that wait in this domain.
        waiting_groups: the first of them in order, at most 100.
        leak_diagnostics: what is out of order, by name; empty when nothing is.
    """

    captured_at: float
    sequence: int
    resource: RequestResourceKey
    is_used: bool
    effective_max: int
    current_limit: int
    in_flight_count: int
    active_lease_count: int
    waiters: int
    blocked_until: float | None
    cooldown_remaining_seconds: float
    algorithm: str
    rate_limit_ceiling: int | None
    ceiling: int
    is_trying: bool
    quiet_until: float | None
    outlook: str
    blocked_for: str | None = None
    token_factor: float = 1.0
    minute_budget: int | None
    minute_served: int
    minute_ends_at: float | None
    consecutive_rate_limits: int
    last_outcome: RequestOutcomeKind | None
    success_streak: int
    successes_needed: int
    cuts: int
    granted: int
    outcomes: dict[RequestOutcomeKind, int]
    waiting_group_count: int
    waiting_groups: tuple[WaitingGroupSnapshot, ...]
    leak_diagnostics: dict[str, int]


class BudgetSnapshot(Snapshot):
    """One quota of a provider/model at one instant (design 03, *Quotas*).

    Attributes:
        budget: which one.
        limit: what is in force, per its period.
        burst: what may go at once.
        level: what is left; below 0 in debt.
        registered: the limit that was registered; None where headers alone stated one.
        learned: the lower limit that headers stated; None where the registered one is in force.
    """

    budget: QuotaBudget
    limit: int
    burst: int
    level: float
    registered: int | None
    learned: int | None


class GlobalSnapshot(Snapshot):
    """One provider/model at one instant.

    Attributes:
        captured_at: server time of the shard, in seconds.
        sequence: number of the shard's last event.
        provider_model: whose shard it is.
        generation: the shard's generation; None when nobody ever joined.
        virtual_time: the fair queue's V.
        static_cap: the bound of all domains together; 0 when nobody has registered.
        override_cap: the operator's cap; None when none is set.
        aggregate_in_flight: leases of all domains as admission counts them.
        aggregate_active_lease_count: those whose member's heartbeat is not overdue.
        waiters: attempts in the queue, over all domains.
        aliases: names that are registered, among the ``registrations``.
        raw_caps: the smallest cap of each alias.
        registration_count: caps registered, by member and alias.
        registrations: the smallest of them, at most 100.
        member_count: members, overdue ones too.
        overdue_member_count: those whose heartbeat is overdue.
        members: the first to expire, at most 100.
        budgets: the quotas in force.
        fair_by: what a turn in the fair queue costs, ``requests`` or ``tokens``.
        domains: the windows.
        leak_diagnostics: what is out of order, by name; empty when nothing is.
    """

    captured_at: float
    sequence: int
    provider_model: ProviderModelKey
    generation: str | None
    virtual_time: float
    static_cap: int
    override_cap: int | None
    aggregate_in_flight: int
    aggregate_active_lease_count: int
    waiters: int
    aliases: tuple[str, ...]
    raw_caps: dict[str, int]
    registration_count: int
    registrations: tuple[RegistrationSnapshot, ...]
    member_count: int
    overdue_member_count: int
    members: tuple[MemberSnapshot, ...]
    budgets: tuple[BudgetSnapshot, ...]
    fair_by: Literal["requests", "tokens"]
    domains: dict[RequestDomain, DomainSnapshot]
    leak_diagnostics: dict[str, int]


class AuditReport(Snapshot):
    """The result of an audit: a shard's counts compared with its entries.

    Attributes:
        ok: nothing differs.
        is_complete: single entries were compared; False where a shard holds too many of them for
            one look, and the totals alone were.
        difference_count: how many differences there are.
        differences: a sentence each, naming key, expected and found; at most 100.
    """

    ok: bool
    is_complete: bool
    difference_count: int
    differences: tuple[str, ...]


class RequestPressure(Protocol):
    """Reads the windows, leases and waiters of request shards, and changes nothing.

    Implemented by ``RequestPressureSnapshotProvider`` of the coordinator; each method raises
    CoordinatorError where the server could not be used.
    """

    async def snapshot(self, resource: RequestResourceKey) -> DomainSnapshot:
        """Return one domain's window."""
        ...

    async def snapshots(self) -> Mapping[RequestResourceKey, DomainSnapshot]:
        """Return the windows of all domains that are used."""
        ...

    async def global_snapshot(self, provider_model: ProviderModelKey) -> GlobalSnapshot:
        """Return one instant of a provider/model: its cap, leases and domains."""
        ...

    async def global_snapshots(self) -> Mapping[ProviderModelKey, GlobalSnapshot]:
        """Return one instant of each provider/model."""
        ...
