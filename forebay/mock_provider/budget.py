"""Requests and tokens per minute as token buckets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from forebay.mock_provider.truth import ProviderTruth

BudgetName = Literal["requests_per_minute", "tokens_per_minute"]

_MINUTE_SECONDS = 60.0
# Floats that were refilled in many small steps must not miss a whole unit by a rounding error.
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLeft:
    """The state of a budget for an answer's headers; each API has its own form.

    Attributes:
        unit: ``requests`` or ``tokens``.
        limit: the size, for a minute.
        remaining: whole units that are there.
        full_in_seconds: until it is full again, not until the next unit.
    """

    unit: str
    limit: int
    remaining: int
    full_in_seconds: float


@dataclass(slots=True, kw_only=True)
class TokenBucket:
    """A budget per minute: full at the start, refilled evenly, never above its size.

    Time is the caller's (seconds, monotonic), so that a test can have its own clock.

    Attributes:
        per_minute: the size, and what a minute refills.
        level: what was left at ``settled_at``.
        settled_at: when ``level`` was computed, in seconds.
    """

    per_minute: int
    level: float
    settled_at: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> TokenBucket:
        """Make a full bucket."""
        return cls(per_minute=per_minute, level=float(per_minute), settled_at=now)

    def settle(self, now: float) -> None:
        """Refill the bucket for the time until ``now``."""
        if now <= self.settled_at:
            return
        refilled = self.level + (now - self.settled_at) * self.per_minute / _MINUTE_SECONDS
        self.level = min(float(self.per_minute), refilled)
        self.settled_at = now

    def resize(self, per_minute: int, now: float) -> None:
        """Change the size; what was spent stays spent, and a smaller bucket holds no more."""
        self.settle(now)
        self.per_minute = per_minute
        self.level = min(self.level, float(per_minute))

    def seconds_until(self, amount: float) -> float:
        """Return the seconds until ``amount`` is free: 0 if it is, infinite if it never fits."""
        if amount > self.per_minute:
            return math.inf
        missing = amount - self.level
        return 0.0 if missing <= _EPSILON else missing * _MINUTE_SECONDS / self.per_minute

    def take(self, amount: float) -> None:
        """Take ``amount``; the caller has made sure that it is there."""
        self.level = max(0.0, self.level - amount)

    def left(self, unit: str) -> BudgetLeft:
        """Return the bucket's state for an answer's headers."""
        return BudgetLeft(
            unit=unit,
            limit=self.per_minute,
            remaining=math.floor(self.level + _EPSILON),
            full_in_seconds=self.seconds_until(self.per_minute),
        )


class Budgets:
    """The buckets of a provider's truth; a request is charged to all of them or to none."""

    def __init__(self) -> None:
        self._buckets: dict[BudgetName, TokenBucket] = {}

    def fit(self, truth: ProviderTruth, now: float) -> None:
        """Make the buckets those of the truth: new ones full, changed ones resized."""
        for name in get_args(BudgetName):
            per_minute: int | None = getattr(truth, name)
            if per_minute is None:
                self._buckets.pop(name, None)
            elif name in self._buckets:
                self._buckets[name].resize(per_minute, now)
            else:
                self._buckets[name] = TokenBucket.full(per_minute, now)

    def settle(self, now: float) -> None:
        """Refill each bucket for the time until ``now``."""
        for bucket in self._buckets.values():
            bucket.settle(now)

    def charge(self, tokens: int) -> tuple[BudgetName, TokenBucket, float] | None:
        """Charge one request and its tokens, if there is room for both.

        Returns:
            None when charged; else the first bucket without room, by name, and the seconds until
            it will have room: infinite when the request is larger than the bucket.
        """
        costs: dict[BudgetName, int] = {"requests_per_minute": 1, "tokens_per_minute": tokens}
        for name, bucket in self._buckets.items():
            seconds = bucket.seconds_until(costs[name])
            if seconds > 0:
                return name, bucket, seconds
        for name, bucket in self._buckets.items():
            bucket.take(costs[name])
        return None

    def left(self) -> list[BudgetLeft]:
        """Return the buckets' states for an answer's headers, as last settled."""
        return [
            bucket.left(name.removesuffix("_per_minute")) for name, bucket in self._buckets.items()
        ]
