"""Retries: their number, pauses and budget (design 03, *Executor*)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from forebay.contracts.checks import shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.outcomes import RequestReleaseOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The number of attempts of a call, and the pauses between them.

    Attributes:
        max_attempts: attempts in all, at least 1.
        base_seconds: the first pause lies between 0 and this; each further bound is twice as long.
        cap_seconds: the longest bound of a pause.
        max_retry_after_seconds: a provider's longer hint is taken as this, the same bound as that
            of a window's cooldown.

    Raises:
        ConfigurationError: attempts below 1, or seconds that are negative or not finite.

    Example:
        >>> policy = forebay.RetryPolicy(base_seconds=0.5, cap_seconds=3.0)
        >>> failed = forebay.RequestReleaseOutcome(kind="provider_failure")
        >>> [policy.pause_seconds(attempts, failed, lambda: 1.0) for attempts in (1, 2, 3, 4)]
        [0.5, 1.0, 2.0, 3.0]
    """

    max_attempts: int = 4
    base_seconds: float = 0.5
    cap_seconds: float = 30.0
    max_retry_after_seconds: float = 300.0

    def __post_init__(self) -> None:
        check_max_attempts(self.max_attempts)
        for name in ("base_seconds", "cap_seconds", "max_retry_after_seconds"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value < float("inf"):
                raise ConfigurationError(
                    f"{name} of a retry policy is {shown(value)}, expected finite seconds of at"
                    " least 0; max_attempts = 1 turns retries off."
                )

    def pause_seconds(
        self, attempts: int, outcome: RequestReleaseOutcome, draw: Callable[[], float]
    ) -> float:
        """Return the pause before the next attempt, after ``attempts`` of them.

        Full jitter, and at least the provider's hint. Not asked after a rate limit that the window
        has been told of: the attempt waits in the queue for the window's cooldown instead.

        Args:
            attempts: made so far, from 1.
            outcome: of the last one.
            draw: returns a random number from 0 to 1.

        Returns:
            Seconds, from 0 on. Raises nothing of its own.
        """
        bound = min(self.cap_seconds, self.base_seconds * 2.0 ** min(attempts - 1, 64))
        hint = min(outcome.retry_after_seconds or 0.0, self.max_retry_after_seconds)
        return max(draw() * bound, hint)


def check_max_attempts(value: object) -> None:
    """Raise unless a number of attempts is at least 1.

    Raises:
        ConfigurationError: not a whole number from 1 on.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(
            f"max_attempts is {shown(value)}, expected a whole number from 1 on; 1 turns retries"
            " off."
        )


class RetryBudget:
    """Bounds the retries of a whole job, so that few calls retry a dead provider.

    Each retry takes one token, each success gives a tenth of one back, up to the first amount.

    Args:
        tokens: retries that are allowed without any success; 0 allows none.

    Raises:
        ConfigurationError: not a whole number from 0 on.

    Example:
        >>> budget = forebay.RetryBudget(1)
        >>> budget.take(), budget.take()
        (True, False)
        >>> budget.give_back()
        >>> budget.tokens
        0.1
    """

    def __init__(self, tokens: int) -> None:
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            raise ConfigurationError(
                f"retry budget is {shown(tokens)}, expected a whole number of retries from 0 on;"
                " pass retry_budget=None for no such bound."
            )
        # In tenths, since ten times 0.1 is not 1.
        self._full = self._tenths = tokens * 10

    @property
    def tokens(self) -> float:
        """Retries that are left, such as 2.3; three tenths are what three successes gave back."""
        return self._tenths / 10

    def take(self) -> bool:
        """Take a token for a retry; False when there is none, and then nothing changes."""
        if self._tenths < 10:  # noqa: PLR2004
            return False
        self._tenths -= 10
        return True

    def give_back(self) -> None:
        """Note a success, which returns a part of a token."""
        self._tenths = min(self._full, self._tenths + 1)
