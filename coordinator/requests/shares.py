"""A member's share of a provider/model, used while the server is away.

Rules: design 06, *When Redis is away*.

Arithmetic and counting alone: which attempts are granted, and when, is for the shard's outage to
say. docs/adr/0024 proves that the shares of all members add up to one window at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from forebay.contracts.identity import RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind, RequestReleaseOutcome
from forebay.contracts.quotas import QuotaBudget
from forebay.contracts.requests import (
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.coordinator.server.membership import Membership

_PERIOD_SECONDS: Final = {
    QuotaBudget.REQUESTS_PER_MINUTE: 60.0,
    QuotaBudget.TOKENS_PER_MINUTE: 60.0,
    QuotaBudget.REQUESTS_PER_DAY: 86400.0,
    QuotaBudget.TOKENS_PER_DAY: 86400.0,
}
_COOLDOWN_SECONDS: Final = 2.0
"""Cooldown after a refusal without a usable hint; ``_MOST_SECONDS`` bounds a hint."""
_MOST_SECONDS: Final = 300.0
_OF_TOKENS: Final = frozenset({QuotaBudget.TOKENS_PER_MINUTE, QuotaBudget.TOKENS_PER_DAY})


def share_of(limit: int, members: int, rank: int) -> int:
    """Return a member's part of a limit; the remainder goes to members of low rank.

    The shares of ranks 0 to ``members`` - 1 add up to the limit; more members, or a higher rank,
    never make a share larger.
    """
    return limit // members + (rank < limit % members)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainShare:
    """One domain's window in a shard's reply about shares.

    Attributes:
        limit: its window.
        cooldown_seconds: how long it cools down from the reply on.
        minute_budget: attempts a minute, as learned; 0 where none is known.
    """

    limit: int
    cooldown_seconds: float
    minute_budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A shard's reply to a member that asks for its share of the window.

    Attributes:
        ticket: of this reply; later ones have higher tickets.
        members: how many ask for shares.
        rank: this member's, from 0, by order of entry.
        is_entitled: whether all others are known to count this member; its share is 0 until then.
        static_cap: the smallest registered cap.
        domains: each domain's limits.
        budgets: limit and burst of each quota in force.
    """

    ticket: int
    members: int
    rank: int
    is_entitled: bool
    static_cap: int
    domains: Mapping[RequestDomain, DomainShare]
    budgets: Mapping[QuotaBudget, tuple[int, int]]

    def of(self, limit: int) -> int:
        """Return this member's share of a limit."""
        return share_of(limit, self.members, self.rank) if self.is_entitled else 0


def decode_share(terms: Sequence[Any]) -> Share:
    """Decode ``["share", ...]``, a result of ``lua/lib/requests/shares.lua``."""
    _word, ticket, members, rank, is_entitled, static_cap, domains, budgets = terms
    return Share(
        ticket=ticket,
        members=members,
        rank=rank,
        is_entitled=bool(is_entitled),
        static_cap=static_cap,
        domains={
            domain: DomainShare(limit=limit, cooldown_seconds=us / 1e6, minute_budget=minute)
            for domain, (limit, us, minute) in zip(RequestDomain, domains, strict=True)
        },
        budgets={
            budget: (limit, burst)
            for budget, (limit, burst) in zip(QuotaBudget, budgets, strict=True)
            if limit
        },
    )


class _Bucket:
    """A share of a budget: it begins empty, as what was left may be used by others."""

    def __init__(self, limit: int, burst: int, seconds: float, now: float) -> None:
        self._rate = limit / seconds
        self._burst = burst
        self._level = 0.0
        self._at = now

    def has_room(self, draw: int, now: float) -> bool:
        """Whether a draw may go now; one above the burst goes when the bucket is full."""
        self._level = min(float(self._burst), self._level + (now - self._at) * self._rate)
        self._at = now
        return self._burst > 0 and self._level >= min(draw, self._burst)

    def draw(self, draw: int) -> None:
        """Draw an amount for which there is room."""
        self._level -= draw


class Allowance:
    """A member's share with the budgets and cooldowns that bound its calls.

    Args:
        share: what it was told last.
        told_at: when that was.
        now: since when it goes by its share.

    Attributes:
        share: as given.
    """

    def __init__(self, share: Share, told_at: float, now: float) -> None:
        self.share = share
        self._paused_until = {
            domain: told_at + told.cooldown_seconds for domain, told in share.domains.items()
        }
        self._buckets = {
            budget: _Bucket(share.of(limit), share.of(burst), _PERIOD_SECONDS[budget], now)
            for budget, (limit, burst) in share.budgets.items()
        }
        self._minutes = {
            domain: _Bucket(own, own, 60.0, now)
            for domain, told in share.domains.items()
            if told.minute_budget
            for own in (share.of(told.minute_budget),)
        }

    def limit(self, domain: RequestDomain) -> int:
        """Return this member's share of a domain's window, at most that of the cap."""
        return min(
            self.share.of(self.share.domains[domain].limit),
            self.share.of(self.share.static_cap),
        )

    def lacks(
        self, domain: RequestDomain, cost: int, running: Mapping[RequestDomain, int], now: float
    ) -> RequestDenialReason | None:
        """Return why an attempt may not be sent now; None where it may.

        Args:
            domain: the attempt's.
            cost: its tokens.
            running: how many calls of this member run in each domain.
            now: the time.
        """
        if now < self._paused_until[domain]:
            return RequestDenialReason.COOLDOWN
        is_full = sum(running.values()) >= self.share.of(self.share.static_cap)
        if is_full or running.get(domain, 0) >= self.limit(domain):
            return RequestDenialReason.NO_CAPACITY
        draws = self._draws(domain, cost)
        if not all(bucket.has_room(draw, now) for bucket, draw in draws):
            return RequestDenialReason.QUOTA
        return None

    def lease(
        self, item: RequestAdmissionItem, membership: Membership, now_at: float
    ) -> RequestAdmissionLease:
        """Draw an attempt's cost from the budgets, and return its lease.

        Args:
            item: the attempt.
            membership: this member's last one.
            now_at: about the server's time, in seconds.
        """
        domain = item.resource.domain
        for bucket, draw in self._draws(domain, item.cost or 0):
            bucket.draw(draw)
        return RequestAdmissionLease(
            lease_id=item.attempt_id,
            item=item,
            acquired_at=now_at,
            limit_at_admission=self.limit(domain),
            cuts_at_admission=0,
            effective_max=self.share.of(self.share.static_cap),
            generation=membership.generation,
            member_id=membership.member_id,
            degraded=True,
        )

    def note_outcome(
        self, domain: RequestDomain, outcome: RequestReleaseOutcome, now: float
    ) -> None:
        """Let a domain cool down where the provider refused."""
        if outcome.kind is RequestOutcomeKind.RATE_LIMITED:
            pause = min(outcome.retry_after_seconds or _COOLDOWN_SECONDS, _MOST_SECONDS)
            self._paused_until[domain] = max(self._paused_until[domain], now + pause)

    def _draws(self, domain: RequestDomain, cost: int) -> list[tuple[_Bucket, int]]:
        draws = [
            (bucket, cost if budget in _OF_TOKENS else 1)
            for budget, bucket in self._buckets.items()
        ]
        if domain in self._minutes:
            draws.append((self._minutes[domain], 1))
        return draws
