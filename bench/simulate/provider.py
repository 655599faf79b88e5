"""A simulated provider: what it admits, how long it takes, and when it changes its mind."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, Protocol

from forebay.simulation.timeline import SECOND_US, to_us

MINUTE_US: Final = 60 * SECOND_US
DRIFT_STEP_US: Final = SECOND_US // 10
"""Step in which a drifting limit is followed."""

Latency = Callable[[Random], float]
"""Draws the seconds that an admitted call takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """A number that changes at instants.

    Attributes:
        values: (from which second on, value), the first at 0.
    """

    values: tuple[tuple[float, float], ...]

    def at(self, us: int) -> float:
        """Return the value at an instant."""
        return next(value for begins, value in reversed(self.values) if to_us(begins) <= us)

    def next_us(self, us: int) -> int | None:
        """Return the next instant of a change; None if there is none."""
        return next((at for begins, _ in self.values if (at := to_us(begins)) > us), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A number that swings between two values.

    Attributes:
        low: the least.
        high: the most.
        seconds: from the least to the most and back.
    """

    low: float
    high: float
    seconds: float

    def at(self, us: int) -> float:
        """Return the value at an instant."""
        middle, swing = (self.high + self.low) / 2, (self.high - self.low) / 2
        return middle - swing * math.cos(2 * math.pi * us / to_us(self.seconds))

    def next_us(self, us: int) -> int | None:
        """Return the next instant of a change."""
        return us - us % DRIFT_STEP_US + DRIFT_STEP_US


Course = Steps | Drift


def fixed(value: float) -> Steps:
    """Return a number that does not change."""
    return Steps(values=((0, value),))


class Limit(Protocol):
    """One rule by which a provider refuses."""

    def refuses(self, now_us: int) -> bool:
        """Whether a call that arrives now is refused."""
        ...

    def take(self, now_us: int) -> None:
        """Count a call that was admitted."""
        ...

    def leave(self) -> None:
        """An admitted call has ended."""
        ...

    def next_us(self, now_us: int) -> int | None:
        """Return the earliest instant at which time alone may let one in; None for never."""
        ...


class AtOnce:
    """At most so many calls at once.

    Args:
        limit: how many.
        others: how many of the places callers take that nobody here knows.

    Attributes:
        course: the limit over time.
    """

    def __init__(self, limit: Course, others: Course | None = None) -> None:
        self.course = limit
        self._others = others or fixed(0)
        self._in_flight = 0

    def places(self, us: int) -> float:
        """Return how many calls of ours are admitted at once."""
        return self.course.at(us) - self._others.at(us)

    def refuses(self, now_us: int) -> bool:
        return self._in_flight + 1 > self.places(now_us)

    def take(self, now_us: int) -> None:  # noqa: ARG002
        self._in_flight += 1

    def leave(self) -> None:
        self._in_flight -= 1

    def next_us(self, now_us: int) -> int | None:
        return _earliest(self.course.next_us(now_us), self._others.next_us(now_us))


class Rate:
    """nginx' ``limit_req``: a bucket that leaks steadily and holds a burst more than one."""

    def __init__(self, per_second: Course, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._level = 0.0
        self._at_us = 0

    def _now(self, now_us: int) -> float:
        leaked = self._per_second.at(now_us) * (now_us - self._at_us) / SECOND_US
        return max(0.0, self._level - leaked)

    def refuses(self, now_us: int) -> bool:
        return self._now(now_us) > self._burst + 1e-9

    def take(self, now_us: int) -> None:
        self._level, self._at_us = self._now(now_us) + 1, now_us

    def leave(self) -> None: ...

    def next_us(self, now_us: int) -> int | None:
        beyond = self._now(now_us) - self._burst
        return now_us + math.ceil(max(0.0, beyond) / self._per_second.at(now_us) * SECOND_US)


class ByTheMinute:
    """At most so many calls in each minute of the provider's clock, which began at an instant."""

    def __init__(self, limit: Course, period_us: int = MINUTE_US, begins_us: int = 0) -> None:
        self._limit = limit
        self._period_us = period_us
        self._begins_us = begins_us
        self._minute = 0
        self._taken = 0

    def _count(self, now_us: int) -> int:
        minute = (now_us - self._begins_us) // self._period_us
        if minute != self._minute:
            self._minute, self._taken = minute, 0
        return self._taken

    def refuses(self, now_us: int) -> bool:
        return self._count(now_us) >= self._limit.at(now_us)

    def take(self, now_us: int) -> None:
        self._taken = self._count(now_us) + 1

    def leave(self) -> None: ...

    def next_us(self, now_us: int) -> int | None:
        boundary = (now_us - self._begins_us) // self._period_us + 1
        return boundary * self._period_us + self._begins_us


class Sliding:
    """At most so many calls in any span of ``period_us``."""

    def __init__(self, limit: int, period_us: int = MINUTE_US) -> None:
        self._limit = limit
        self._period_us = period_us
        self._taken: deque[int] = deque()

    def refuses(self, now_us: int) -> bool:
        while self._taken and self._taken[0] <= now_us - self._period_us:
            self._taken.popleft()
        return len(self._taken) >= self._limit

    def take(self, now_us: int) -> None:
        self._taken.append(now_us)

    def leave(self) -> None: ...

    def next_us(self, now_us: int) -> int | None:
        return self._taken[0] + self._period_us if self._taken else now_us


class Outages:
    """Refuses everything in spans of seconds."""

    def __init__(self, *spans: tuple[float, float]) -> None:
        self._spans = [(to_us(begins), to_us(ends)) for begins, ends in spans]

    def refuses(self, now_us: int) -> bool:
        return any(begins <= now_us < ends for begins, ends in self._spans)

    def take(self, now_us: int) -> None: ...

    def leave(self) -> None: ...

    def next_us(self, now_us: int) -> int | None:
        return next((ends for _, ends in self._spans if ends > now_us), None)


def _earliest(*instants: int | None) -> int | None:
    return min((us for us in instants if us is not None), default=None)


class Provider:
    """Limits, latencies and random refusals.

    Args:
        limits: asked in order; one that ``counts_refused`` counts calls that a later one refuses.
        latency: draws how long an admitted call takes, in seconds.
        hint_seconds: what a refusal says in ``retry-after``; None says nothing, "rest" says when
            time alone may let a call in.
        counts_refused: the kinds of limit that do so, as nginx' rate does.
        refused_at_random: the share of calls that are refused for no reason.
        useful: how many calls it serves at full speed; with more, all slow down. None for any.
        random: draws.

    Attributes:
        in_flight: calls that it serves.
    """

    def __init__(
        self,
        *limits: Limit,
        latency: Latency,
        random: Random,
        hint_seconds: float | Literal["rest"] | None = None,
        counts_refused: tuple[type, ...] = (),
        refused_at_random: float = 0.0,
        useful: float | None = None,
    ) -> None:
        self.limits: Sequence[Limit] = limits
        self._hint_seconds = hint_seconds
        self.in_flight = 0
        self._latency = latency
        self._random = random
        self._counts_refused = counts_refused
        self._refused_at_random = refused_at_random
        self._useful = useful

    @property
    def at_once(self) -> AtOnce | None:
        """The limit on calls at once, where there is one."""
        return next((limit for limit in self.limits if isinstance(limit, AtOnce)), None)

    def would_refuse(self, now_us: int) -> bool:
        """Whether a limit refuses a call that arrives now."""
        return any(limit.refuses(now_us) for limit in self.limits)

    def admits(self, now_us: int) -> bool:
        """Decide on a call that arrives now, and count it."""
        for limit in self.limits:
            if limit.refuses(now_us):
                return False
            if isinstance(limit, self._counts_refused):
                limit.take(now_us)
        for limit in self.limits:
            if not isinstance(limit, self._counts_refused):
                limit.take(now_us)
        self.in_flight += 1
        return True

    def refuses_at_random(self) -> bool:
        """Draw whether a call is refused for no reason."""
        return self._refused_at_random > 0 and self._random.random() < self._refused_at_random

    def hint_at(self, now_us: int) -> float | None:
        """Return the ``retry-after`` of a refusal."""
        if self._hint_seconds != "rest":
            return self._hint_seconds
        next_us = self.next_us(now_us)
        return None if next_us is None else max(0.001, (next_us - now_us) / SECOND_US)

    def leave(self) -> None:
        """A call that was admitted has ended."""
        self.in_flight -= 1
        for limit in self.limits:
            limit.leave()

    def latency_us(self) -> int:
        """Draw how long a call takes that begins now."""
        slow = 1.0 if self._useful is None else max(1.0, self.in_flight / self._useful)
        return max(1, to_us(self._latency(self._random) * slow))

    def next_us(self, now_us: int) -> int | None:
        """Return the earliest instant at which time alone may let a call in."""
        refusing = [limit for limit in self.limits if limit.refuses(now_us)]
        return _earliest(*(limit.next_us(now_us) for limit in refusing))
