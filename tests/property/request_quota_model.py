"""A reference model of quotas, from design 03, *Quotas*, and ADR 0007 alone: a bucket per budget.

All arithmetic is that of doubles in the order of the ADR, so levels and instants can be compared
exactly with those of the scripts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from forebay.contracts.quotas import QuotaBudget, QuotaReading
from forebay.contracts.settings import RequestQuotas

MINUTE_US: Final = 60 * 1_000_000
DAY_US: Final = 86_400 * 1_000_000
PERIOD_US: Final = {
    QuotaBudget.REQUESTS_PER_MINUTE: MINUTE_US,
    QuotaBudget.TOKENS_PER_MINUTE: MINUTE_US,
    QuotaBudget.REQUESTS_PER_DAY: DAY_US,
    QuotaBudget.TOKENS_PER_DAY: DAY_US,
}
TOKENS: Final = {QuotaBudget.TOKENS_PER_MINUTE, QuotaBudget.TOKENS_PER_DAY}


@dataclass(slots=True, kw_only=True)
class Bucket:
    """A budget in force: registered, learned from headers, or both.

    Attributes:
        registered: the registered limit, None where only headers stated one.
        learned: the limit that headers stated last.
        remaining: what headers said last was left, at ``remaining_at_us``.
        heard_us: the instant of the last reading that was taken.
    """

    budget: QuotaBudget
    registered: int | None = None
    registered_burst: int | None = None
    learned: int | None = None
    level: float = 0.0
    at_us: int = 0
    remaining: int | None = None
    remaining_at_us: int = 0
    heard_us: int = 0

    @property
    def limit(self) -> int:
        """The limit in force: headers may lower the registered one, never raise it."""
        return min(limit for limit in (self.registered, self.learned) if limit is not None)

    @property
    def burst(self) -> int:
        """The burst in force: the limit, unless registered smaller."""
        return self.limit if self.registered_burst is None else min(self.burst_asked, self.limit)

    @property
    def burst_asked(self) -> int:
        """The registered burst, which says what never fits."""
        assert self.registered is not None
        if self.registered_burst is None:
            return self.registered
        return min(self.registered_burst, self.registered)

    def refill(self, since_us: int, now_us: int) -> float:
        """What time gives back."""
        return float(now_us - since_us) * float(self.limit) / float(PERIOD_US[self.budget])

    def level_at(self, now_us: int) -> float:
        """The level, in memory: looking moves no instant."""
        return min(float(self.burst), self.level + self.refill(self.at_us, now_us))

    def settle(self, now_us: int) -> None:
        """Before each change."""
        self.level, self.at_us = self.level_at(now_us), now_us

    def ready_us(self, draw: int) -> int:
        """When it has room for a draw."""
        need = float(min(draw, self.burst))
        if self.level >= need:
            return self.at_us
        missing_us = (need - self.level) * float(PERIOD_US[self.budget]) / float(self.limit)
        return int(float(self.at_us) + float(math.ceil(missing_us)))

    def give_back(self, amount: int, now_us: int) -> None:
        """Lift the level, at most to the burst and to what headers left plus the refill since."""
        self.settle(now_us)
        most = float(self.burst)
        if self.remaining is not None:
            most = min(most, self.remaining + self.refill(self.remaining_at_us, now_us))
        self.level = max(self.level, min(most, self.level + amount))

    def set_limits(
        self, *, registered: int | None, burst: int | None, learned: int | None, now_us: int
    ) -> None:
        """Settle at the old rate if anything changes, in force or not.

        What headers stated is forgotten once it is no lower than what is registered.
        """
        is_new = self.registered is None and self.learned is None
        is_lower = registered is None or (learned is not None and learned < registered)
        learned = learned if is_lower else None
        if (registered, burst, learned) == (self.registered, self.registered_burst, self.learned):
            return
        settled = math.inf if is_new else self.level_at(now_us)
        self.registered, self.registered_burst, self.learned = registered, burst, learned
        self.level, self.at_us = min(settled, float(self.burst)), now_us


@dataclass(slots=True)
class Quotas:
    """The buckets of a provider/model."""

    buckets: dict[QuotaBudget, Bucket] = field(default_factory=dict)

    def in_force(self) -> list[Bucket]:
        """Return the buckets in the order of budgets."""
        return [self.buckets[budget] for budget in QuotaBudget if budget in self.buckets]

    def register(self, quotas: RequestQuotas | None, now_us: int) -> None:
        """Set the budgets as a whole: what is not named is bounded by headers alone, if at all.

        A registration that says nothing of quotas changes none.
        """
        if quotas is None:
            return
        for budget in QuotaBudget:
            limit, burst = getattr(quotas, budget), quotas.bursts.get(budget)
            bucket = self.buckets.setdefault(budget, Bucket(budget=budget))
            if limit is None and bucket.learned is None:
                del self.buckets[budget]
            else:
                bucket.set_limits(
                    registered=limit, burst=burst, learned=bucket.learned, now_us=now_us
                )

    def draws(self, cost: int) -> dict[QuotaBudget, int]:
        """Return what an attempt draws from each bucket, if it draws anything."""
        wanted = {budget: cost if budget in TOKENS else 1 for budget in self.buckets}
        return {budget: draw for budget, draw in wanted.items() if draw > 0}

    def lacks(self, cost: int, now_us: int) -> dict[QuotaBudget, int]:
        """Return the buckets without room for a cost, each with the instant at which it has."""
        ready = {
            budget: self.buckets[budget].ready_us(draw) for budget, draw in self.draws(cost).items()
        }
        return {budget: at_us for budget, at_us in ready.items() if at_us > now_us}

    def never_fits(self, cost: int) -> QuotaBudget | None:
        """Return the first budget whose registered burst is below a cost."""
        for bucket in self.in_force():
            if bucket.budget in TOKENS and bucket.registered and cost > bucket.burst_asked:
                return bucket.budget
        return None

    def draw(self, cost: int, now_us: int) -> None:
        """A grant: all budgets are charged, down to a debt."""
        for budget, draw in self.draws(cost).items():
            self.buckets[budget].settle(now_us)
            self.buckets[budget].level -= draw

    def settle(self, cost: int, used: int, now_us: int, *, unsent: bool) -> None:
        """A lease ended and its usage is known; unsent gives back draws on requests too."""
        for bucket in self.buckets.values():
            back = cost - used if bucket.budget in TOKENS else int(unsent)
            if back > 0:
                bucket.give_back(back, now_us)
            elif back < 0:
                bucket.settle(now_us)
                bucket.level += back

    def learn(self, reading: QuotaReading, at_us: int, now_us: int) -> bool:
        """Take what headers say of a budget; return whether it corrected a limit or level."""
        bucket = self.buckets.get(reading.budget)
        at_us = min(at_us, now_us)
        if bucket is None:
            if reading.limit is None:
                return False
            bucket = self.buckets[reading.budget] = Bucket(budget=reading.budget)
            before: tuple[int, float] | None = None
        elif at_us < bucket.heard_us:
            return False
        else:
            bucket.settle(now_us)
            before = (bucket.limit, bucket.level)
        bucket.heard_us = at_us
        if reading.limit is not None:
            bucket.set_limits(
                registered=bucket.registered,
                burst=bucket.registered_burst,
                learned=reading.limit,
                now_us=now_us,
            )
        if reading.remaining is not None:
            bucket.remaining, bucket.remaining_at_us = reading.remaining, at_us
            bucket.level = min(bucket.level, float(reading.remaining))
        return before != (bucket.limit, bucket.level)
