"""Quotas: a provider's budgets of requests and tokens over time (design 03, *Quotas*)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from forebay.contracts.checks import check_cap, check_choice, shown
from forebay.contracts.errors import ConfigurationError

MAX_BUDGET: Final = 1_000_000_000_000
"""Largest limit in requests or tokens: far above what anybody sells."""


class QuotaBudget(StrEnum):
    """The budgets of a provider/model; a day has 86,400 s.

    Attributes:
        REQUESTS_PER_MINUTE: attempts in 60 s.
        TOKENS_PER_MINUTE: tokens in 60 s.
        REQUESTS_PER_DAY: attempts in 86,400 s.
        TOKENS_PER_DAY: tokens in 86,400 s.
    """

    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    REQUESTS_PER_DAY = "requests_per_day"
    TOKENS_PER_DAY = "tokens_per_day"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaReading:
    """The values of a budget in one answer's headers.

    Attributes:
        budget: which one, its text is taken as well.
        limit: what the provider says a whole period holds; None if it does not say.
        remaining: what it says is left now; None if it does not say.

    Raises:
        ConfigurationError: no budget, a limit below 1, or a remaining below 0.

    Example:
        >>> reading = forebay.QuotaReading(budget="tokens_per_minute", remaining=1200)
        >>> reading.budget
        <QuotaBudget.TOKENS_PER_MINUTE: 'tokens_per_minute'>
    """

    budget: QuotaBudget
    limit: int | None = None
    remaining: int | None = None

    def __post_init__(self) -> None:
        if type(self.budget) is not QuotaBudget:
            budget = check_choice("quota budget", self.budget, QuotaBudget)
            object.__setattr__(self, "budget", budget)
        if self.limit is not None:
            check_cap(f"limit of {self.budget}", self.limit, MAX_BUDGET)
        left = self.remaining
        if left is not None and (
            isinstance(left, bool) or not isinstance(left, int) or not 0 <= left <= MAX_BUDGET
        ):
            raise ConfigurationError(
                f"remaining of {self.budget} is {shown(left)}, expected a whole number from 0 to"
                f" {MAX_BUDGET}; give one, or None."
            )
