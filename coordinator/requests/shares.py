"""A member's part of a provider/model, with which it goes on while the server is away (spec 06).

Arithmetic and counting alone: which attempts are granted, and when, is for the shard's outage to
say. docs/adr/0024 proves that the parts of all members add up to one window at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from forebay.contracts.identity import RequestDomain
from forebay.contracts.quotas import QuotaBudget

_PERIOD_SECONDS: Final = {
    QuotaBudget.REQUESTS_PER_MINUTE: 60.0,
    QuotaBudget.TOKENS_PER_MINUTE: 60.0,
    QuotaBudget.REQUESTS_PER_DAY: 86400.0,
    QuotaBudget.TOKENS_PER_DAY: 86400.0,
}
_OF_TOKENS: Final = frozenset({QuotaBudget.TOKENS_PER_MINUTE, QuotaBudget.TOKENS_PER_DAY})


def part_of(limit: int, members: int, rank: int) -> int:
    """Return how much of a limit one of several members has: the remainder goes to low ranks.

    The parts of ranks 0 to ``members`` - 1 add up to the limit; more members, or a higher rank,
    never make a part larger.
    """
    return limit // members + (rank < limit % members)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainShare:
    """What a shard says of one domain.

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
    """What a shard answers to a member that asks for its part.

    Attributes:
        members: how many ask for parts.
        rank: this member's, from 0, by order of entry.
        is_entitled: whether all others have been told of this member; its part is 0 until then.
        static_cap: the smallest registered cap.
        domains: each domain's limits.
        budgets: limit and burst of each quota in force.
    """

    members: int
    rank: int
    is_entitled: bool
    static_cap: int
    domains: Mapping[RequestDomain, DomainShare]
    budgets: Mapping[QuotaBudget, tuple[int, int]]

    def part(self, limit: int) -> int:
        """Return this member's part of a limit."""
        return part_of(limit, self.members, self.rank) if self.is_entitled else 0


def decode_share(terms: Sequence[Any]) -> Share:
    """Return what ``["share", ...]`` says, a result of ``lua/lib/requests/shares.lua``."""
    _word, members, rank, is_entitled, static_cap, domains, budgets = terms
    return Share(
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
