"""A reference model of one domain's window, from spec 03, *The window (AIMD)*, alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

from forebay.contracts.identity import RequestDomain
from forebay.contracts.requests import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig

KEEPS_CONSECUTIVE = {
    Outcome.RATE_LIMITED,
    Outcome.LOCAL_CANCELLED,
    Outcome.LOCAL_TIMEOUT,
    Outcome.MEMBER_LOST,
}

Said = tuple[Any, ...]


class Admitted(Protocol):
    """What a window knows of a lease: the terms it was granted on."""

    @property
    def cuts(self) -> int: ...
    @property
    def limit(self) -> int: ...


def to_us(seconds: float) -> int:
    """Return whole microseconds."""
    return round(seconds * 1e6)


def ceiling_of(config: RequestAdmissionConfig, domain: RequestDomain, static_cap: int) -> int:
    """Return ``effective_max``: the static cap and the clamp, never below 1."""
    return max(1, min(static_cap, config.max_limit_clamps.get(domain, static_cap)))


def said_of_move(before: int, after: int, reason: str) -> Iterator[Said]:
    """Say that a limit moved, if it did."""
    if after != before:
        kind = "increased" if after > before else "decreased"
        yield f"request_limit_{kind}", before, after, reason


@dataclass(slots=True, kw_only=True)
class Window:
    """A domain's window.

    Attributes:
        initial: the configured initial limit at birth, None for the ceiling.
        limit: the window, meaningless while it ramps.
        ramp_us: length of the ramp, 0 when it is over.
        ceiling: the noted rate limit ceiling, 0 for none.
    """

    effective_max: int
    initial: int | None
    limit: int
    born_us: int
    ramp_us: int
    blocked_until_us: int = 0
    streak: int = 0
    cuts: int = 0
    ceiling: int = 0
    consecutive: int = 0
    last_outcome: str = ""

    @classmethod
    def born(
        cls, config: RequestAdmissionConfig, domain: RequestDomain, effective_max: int, now_us: int
    ) -> Self:
        """At a domain's first acquire, at the initial limit clamped to 1..effective_max."""
        window = cls(
            effective_max=effective_max,
            initial=config.initial_limits.get(domain),
            limit=1,
            born_us=now_us,
            ramp_us=to_us(config.tuning.startup_ramp_seconds),
        )
        window.limit = window.target
        return window

    @property
    def target(self) -> int:
        """The initial limit under the present caps."""
        if self.initial is None:
            return self.effective_max
        return max(1, min(self.initial, self.effective_max))

    def limit_at(self, now_us: int) -> int:
        """The window at an instant."""
        if self.ramp_us == 0:
            return self.limit
        elapsed = min(now_us - self.born_us, self.ramp_us)
        return 1 + (self.target - 1) * elapsed // self.ramp_us

    def end_ramp(self, now_us: int) -> None:
        """From the ramp's end on the window stands by itself."""
        if self.ramp_us and now_us - self.born_us >= self.ramp_us:
            self.ramp_us, self.limit = 0, self.target

    def _move(self, limit: int, reason: str) -> Iterator[Said]:
        yield from said_of_move(self.limit, limit, reason)
        self.limit = limit

    def reset(
        self, config: RequestAdmissionConfig, domain: RequestDomain, static_cap: int, now_us: int
    ) -> Iterator[Said]:
        """Born anew, but for the cooldown; no lease admitted before cuts it."""
        before = self.limit_at(now_us)
        known = ceiling_of(config, domain, static_cap) if static_cap else self.effective_max
        new = Window.born(config, domain, known, now_us)
        self.effective_max, self.initial = new.effective_max, new.initial
        self.limit, self.born_us, self.ramp_us = new.limit, new.born_us, new.ramp_us
        self.streak, self.ceiling, self.consecutive = 0, 0, 0
        self.cuts += 1
        after = self.limit_at(now_us)
        yield "request_window_reset", before, after
        yield from said_of_move(before, after, "reset")

    def on_caps(
        self, config: RequestAdmissionConfig, domain: RequestDomain, static_cap: int, now_us: int
    ) -> Iterator[Said]:
        """Lowering lowers at once; raising lifts one at its old maximum that was never cut."""
        old, new = self.effective_max, ceiling_of(config, domain, static_cap)
        before, self.effective_max = self.limit_at(now_us), new
        if self.ramp_us:
            yield from said_of_move(before, self.limit_at(now_us), "cap")
        elif new < self.limit or (new > old == self.limit and not self.ceiling):
            yield from self._move(new, "cap")

    def on_outcome(
        self,
        config: RequestAdmissionConfig,
        lease: Admitted,
        outcome: Outcome,
        hint_seconds: float | None,
        now_us: int,
        *,
        is_empty: bool,
    ) -> Iterator[Said]:
        """An attempt ended; ``is_empty`` says that it was the domain's last lease."""
        self.last_outcome = outcome.value
        if outcome is Outcome.RATE_LIMITED:
            yield from self._on_rate_limited(config, lease, hint_seconds, now_us)
        elif outcome is Outcome.SUCCESS and now_us >= self.blocked_until_us:
            self.consecutive = 0
            if not self.ramp_us:
                yield from self._on_success(config)
        if is_empty and outcome not in KEEPS_CONSECUTIVE:
            self.consecutive = 0

    def _on_rate_limited(
        self,
        config: RequestAdmissionConfig,
        lease: Admitted,
        hint_seconds: float | None,
        now_us: int,
    ) -> Iterator[Said]:
        self.consecutive += 1
        self.streak = 0
        usable = hint_seconds is not None and math.isfinite(hint_seconds) and hint_seconds > 0
        pause = hint_seconds if usable else None
        pause = config.tuning.cooldown_seconds if pause is None else pause
        if pause > config.max_cooldown_seconds:
            pause = config.max_cooldown_seconds
            yield "request_release_diagnostic", "", "cooldown_clamped"
        self.blocked_until_us = max(self.blocked_until_us, now_us + to_us(pause))
        yield "request_rate_limited", self.blocked_until_us
        if lease.cuts == self.cuts:
            self.limit, self.ramp_us = self.limit_at(now_us), 0
            self.cuts += 1
            self.ceiling = self.ceiling or lease.limit
            factor = config.tuning.multiplicative_decrease_factor
            yield from self._move(max(1, math.floor(self.limit * factor)), "rate_limited")

    def _on_success(self, config: RequestAdmissionConfig) -> Iterator[Said]:
        self.streak += 1
        if self.streak < config.tuning.successes_until_increase:
            return
        self.streak = 0
        before = self.limit
        after = min(self.effective_max, before + config.tuning.additive_increase_step)
        if after <= before:
            return
        yield from self._move(after, "success")
        if before < self.ceiling <= after:
            yield ("request_soft_ceiling_recovered",)
        if self.ceiling and after == self.effective_max:
            self.ceiling = 0
            yield ("request_fully_recovered",)
