"""The state of the reference model of a request shard, and who may go in it: plain and obvious.

It keeps no counter: in-flight, waiters and caps are counted anew from leases, waiters and
registrations each time (design 01, *Invariants* 4), and choosing walks everybody who waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from forebay.contracts.identity import RequestDomain
from forebay.contracts.quotas import QuotaBudget
from forebay.contracts.settings import RequestAdmissionConfig
from tests.property import window_minute_model as minute
from tests.property.member_model import Listeners
from tests.property.request_queue_model import FairQueue, Waiter
from tests.property.request_quota_model import Quotas
from tests.property.request_window_model import Window
from tests.support_scripts import Acquire, Notices

Result = list[Any]


@dataclass(slots=True, kw_only=True)
class Lease:
    """A live lease and the terms it was granted on."""

    lease_id: str
    member: str
    domain: RequestDomain
    group: str
    terms: list[int]
    cuts: int
    limit: int
    held_until_us: float
    cost: int

    @property
    def granted_us(self) -> int:
        return self.terms[0]

    @property
    def granted(self) -> Result:
        return ["granted", self.lease_id, *self.terms]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """What a batch answers, and what other members are told."""

    now_us: int
    results: list[Result]
    notices: list[Result]
    pushed: Notices


@dataclass(slots=True)
class ModelState:
    """What a shard holds, and what follows from it at an instant.

    Attributes:
        server_us: the server's clock, which the test moves.
        listeners: who is listened to.
        caller: whose call this is; None for an operator's.
        caps: cap of each alias, by member and alias.
        override: the operator's bound of the static cap.
        queue: all who wait, and the groups' places in line.
        queued: since when each domain has had waiters, and whether that was told.
        quotas: the budgets in force.
        finished: how an id that is no lease any more ended: "released" or "expired".
        transitions: the events that the design promises, with time and fields as text.
        corrections: each event of a corrected quota: time, budget and limit in force.
    """

    server_us: int
    generation: str
    now_us: int = 0
    last_us: int | None = None
    config: RequestAdmissionConfig = field(default_factory=RequestAdmissionConfig)
    members: dict[str, int] = field(default_factory=dict)
    listeners: Listeners = field(default_factory=Listeners)
    caller: str | None = None
    caps: dict[tuple[str, str], int] = field(default_factory=dict)
    override: int | None = None
    windows: dict[RequestDomain, Window] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    queue: FairQueue = field(default_factory=FairQueue)
    queued: dict[RequestDomain, tuple[int, bool]] = field(default_factory=dict)
    quotas: Quotas = field(default_factory=Quotas)
    finished: dict[str, str] = field(default_factory=dict)
    replies: dict[str, tuple[int, ModelReply]] = field(default_factory=dict)
    transitions: list[tuple[str, ...]] = field(default_factory=list)
    corrections: list[tuple[str, ...]] = field(default_factory=list)
    told: Notices = field(default_factory=dict)

    # -- counted anew each time

    @property
    def static_cap(self) -> int:
        """The smallest of the registered caps and the override; 0 where nobody registered."""
        if self.caps and self.override is not None:
            return min(self.override, *self.caps.values())
        return min(self.caps.values(), default=0)

    def in_flight(self, domain: RequestDomain | None = None) -> int:
        """Live leases of a domain, or of all."""
        return sum(domain in {None, lease.domain} for lease in self.leases.values())

    def may_go(self, domain: RequestDomain) -> bool:
        """Design 03, *Eligible*, but for quotas: the domain is open."""
        window, in_flight = self.windows[domain], self.in_flight(domain)
        limit = min(window.limit_at(self.now_us), window.effective_max)
        return (
            self.now_us >= window.blocked_until_us
            and in_flight < limit
            and self.in_flight() < self.static_cap
            and not self.opens_us(domain)
        )

    def opens_us(self, domain: RequestDomain) -> int:
        """When the minute is over whose learned budget is used up; 0 where it is not used up."""
        window, in_flight = self.windows[domain], self.in_flight(domain)
        is_used_up = self.is_steady and minute.is_closed(window, in_flight, self.now_us)
        return window.opened_us + minute.MINUTE_US if is_used_up else 0

    @property
    def is_steady(self) -> bool:
        """Whether windows move by the rule ``steady``."""
        return self.config.tuning.rule == "steady"

    def read_clock(self) -> int:
        """Return the shard's time: a step back of the server's clock costs nothing."""
        if self.last_us is None:
            return self.server_us
        return self.now_us + max(0, self.server_us - self.last_us)

    def own(self, member: str, attempt_id: str) -> Result | None:
        """Return what a member knows of its attempt, None if there is none."""
        lease, waiter = self.leases.get(attempt_id), self.queue.waiters.get(attempt_id)
        if lease is not None and lease.member == member:
            return lease.granted
        return ["waiting"] if waiter is not None and waiter.member == member else None

    # -- who may go (design 03, *Order*)

    def first_absent(self) -> Waiter | None:
        """Return the first head that cannot be told of a grant, so that nothing is kept for it.

        Without quotas the first head alone is looked at: it is the one that goes.
        """
        heads = self.queue.heads(self.may_go)
        looked_at = heads if self.quotas.in_force() else heads[:1]
        absent = (
            head
            for head in looked_at
            if not self.listeners.is_present(head.member, self.caller, self.now_us)
        )
        return next(absent, None)

    def first_able(self) -> Waiter | None:
        """Return the first head that neither lacks a quota nor draws on a reserved one."""
        reserved: set[QuotaBudget] = set()
        for head in self.queue.heads(self.may_go):
            if self._has_quota(head.cost, reserved):
                return head
            reserved |= self.quotas.lacks(head.cost, self.now_us).keys()
        return None

    def _has_quota(self, cost: int, reserved: set[QuotaBudget]) -> bool:
        has_room = not self.quotas.lacks(cost, self.now_us)
        return has_room and not reserved & self.quotas.draws(cost).keys()

    def may_pass(self, op: Acquire) -> bool:
        """Whether a newcomer goes at once: it takes part behind equal tags."""
        heads = self.queue.heads(self.may_go)
        before = self.queue.heads_before(op.group, op.domain, heads, self.now_us)
        if not self.may_go(op.domain) or before is None:
            return False
        lacks = [self.quotas.lacks(head.cost, self.now_us) for head in before]
        return self._has_quota(op.cost, {budget for each in lacks for budget in each})

    def quota_instants(self) -> list[int]:
        """When heads of open domains lack no budget any more.

        That one of several is there again lets nobody else go: what all attempts draw on is lacked
        by all alike, and who draws on one budget of tokens draws on each.
        """
        heads = self.queue.heads(self.may_go)
        lacks = [self.quotas.lacks(head.cost, self.now_us) for head in heads]
        return [max(each.values()) for each in lacks if each]

    def turn(self, cost: int) -> int:
        """Return what a turn costs the group."""
        return max(1, cost) if self.config.fair_by == "tokens" else 1

    # -- telling

    def tell(self, member: str, notice: Result) -> None:
        """Note an event of an attempt of a member."""
        self.told.setdefault(member, []).append(notice)

    def say(self, kind: str, *fields: object) -> None:
        """Note an event."""
        self.transitions.append((str(self.now_us), kind, *map(str, fields)))
