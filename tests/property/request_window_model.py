"""A reference model of one domain's window under either rule.

Rules: design 03, *The window*; design 11.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self

from forebay.contracts.identity import RequestDomain
from forebay.contracts.outcomes import RateLimitScope
from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig
from tests.property import window_aimd_model as aimd
from tests.property import window_minute_model as minute
from tests.property import window_steady_model as steady
from tests.property.window_state_model import LeaseEnd, Said, WindowState, said_of_move

KEEPS_CONSECUTIVE = {
    Outcome.RATE_LIMITED,
    Outcome.LOCAL_CANCELLED,
    Outcome.LOCAL_TIMEOUT,
    Outcome.MEMBER_LOST,
}
LONGEST_BUDGET_HINT_SECONDS = 31 * 24 * 3600.0


class Admitted(Protocol):
    """What a window knows of a lease: the terms it was granted on."""

    @property
    def cuts(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def granted_us(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a lease ended, as its holder says.

    Attributes:
        in_flight: leases of the domain before this one was taken off.
    """

    outcome: Outcome
    hint_seconds: float | None
    scope: RateLimitScope | None
    in_flight: int
    now_us: int

    @property
    def hint(self) -> float:
        """The provider's hint if it is of use, else 0."""
        hint = self.hint_seconds
        return hint if hint is not None and math.isfinite(hint) and hint > 0 else 0.0


def to_us(seconds: float) -> int:
    """Return whole microseconds."""
    return round(seconds * 1e6)


def ceiling_of(config: RequestAdmissionConfig, domain: RequestDomain, static_cap: int) -> int:
    """Return ``effective_max``: the static cap and the clamp, never below 1."""
    return max(1, min(static_cap, config.max_limit_clamps.get(domain, static_cap)))


def steady_settings(config: RequestAdmissionConfig, pause_us: int = 0) -> steady.SteadySettings:
    """Return what a registration says of the rule ``steady``."""
    return steady.SteadySettings(
        cooldown_us=pause_us,
        successes_until_try=config.tuning.successes_until_try,
        round_successes=config.tuning.round_successes,
    )


@dataclass(slots=True, kw_only=True)
class Window(WindowState):
    """A domain's window; ``limit`` is meaningless while it ramps.

    Attributes:
        initial: the limit at birth, None for all that is allowed.
        ramp_us: length of the ramp, 0 when it is over.
        quota_until_us: until when the last refusal for a budget blocked, 0 before the first.
        served_at_quota: ``served`` at that refusal.
    """

    initial: int | None
    born_us: int
    ramp_us: int
    consecutive: int = 0
    last_outcome: str = ""
    quota_until_us: int = 0
    served_at_quota: int = 0

    @classmethod
    def born(
        cls, config: RequestAdmissionConfig, domain: RequestDomain, effective_max: int, now_us: int
    ) -> Self:
        """At a domain's first acquire, at the initial limit clamped to 1..effective_max."""
        is_steady = config.tuning.rule == "steady"
        window = cls(
            effective_max=effective_max,
            initial=config.initial_limits.get(domain, 4 if is_steady else None),
            limit=1,
            step=int(is_steady),
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

    def reset(
        self, config: RequestAdmissionConfig, domain: RequestDomain, static_cap: int, now_us: int
    ) -> Iterator[Said]:
        """Born anew, but for the cooldown; no lease admitted before cuts it."""
        yield from self.tell_return()
        yield from minute.forget(self)
        before = self.limit_at(now_us)
        known = ceiling_of(config, domain, static_cap) if static_cap else self.effective_max
        new = Window.born(config, domain, known, now_us)
        self.effective_max, self.initial, self.step = new.effective_max, new.initial, new.step
        self.limit, self.born_us, self.ramp_us = new.limit, new.born_us, new.ramp_us
        self.credit = self.noted = self.consecutive = 0
        self.row = self.soon_tries = self.top = self.quiet_until_us = self.quota_until_us = 0
        self.served_at_refusal = self.served
        self.cuts += 1
        after = self.limit_at(now_us)
        yield "request_window_reset", before, after
        yield from said_of_move(before, after, "reset")

    def on_caps(
        self, config: RequestAdmissionConfig, domain: RequestDomain, static_cap: int, now_us: int
    ) -> Iterator[Said]:
        """The static cap or a clamp may have moved."""
        new = ceiling_of(config, domain, static_cap)
        if self.ramp_us:
            before, self.effective_max = self.limit_at(now_us), new
            yield from said_of_move(before, self.limit_at(now_us), "cap")
        else:
            recap = steady.recap if config.tuning.rule == "steady" else aimd.recap
            yield from recap(self, new)

    # -- outcomes

    def on_outcome(
        self, config: RequestAdmissionConfig, lease: Admitted, ended: Ended
    ) -> Iterator[Said]:
        """An attempt ended."""
        outcome, now_us = ended.outcome, ended.now_us
        self.last_outcome = outcome.value
        if outcome is Outcome.RATE_LIMITED:
            self.consecutive += 1
            yield from self._on_rate_limited(config, lease, ended)
        elif outcome is Outcome.SUCCESS:
            in_a_row = self.consecutive
            self.served += 1
            if now_us >= self.blocked_until_us:
                self.consecutive = 0
            if not self.ramp_us:
                yield from self._on_success(config, lease, ended, in_a_row)
        if ended.in_flight == 1 and outcome not in KEEPS_CONSECUTIVE:
            self.consecutive = 0

    def _on_success(
        self, config: RequestAdmissionConfig, lease: Admitted, ended: Ended, in_a_row: int
    ) -> Iterator[Said]:
        if config.tuning.rule == "steady":
            end = replace(_end(lease, ended), in_a_row=in_a_row)
            yield from steady.succeed(self, steady_settings(config), end)
        elif ended.now_us >= self.blocked_until_us:
            yield from aimd.succeed(self, config.tuning)

    def _on_rate_limited(
        self, config: RequestAdmissionConfig, lease: Admitted, ended: Ended
    ) -> Iterator[Said]:
        """A refusal for a budget blocks until its refill; any other one is the rule's."""
        said: list[Said] = []
        if ended.scope is not RateLimitScope.QUOTA or not ended.hint:
            yield from self._refuse(config, lease, ended, said)
        else:
            is_again = 0 < self.quota_until_us <= lease.granted_us
            is_again = is_again and self.served == self.served_at_quota
            refill, diagnostic = _believed(ended.hint, LONGEST_BUDGET_HINT_SECONDS)
            yield from diagnostic
            self.block(ended.now_us + to_us(refill))
            self.quota_until_us, self.served_at_quota = self.blocked_until_us, self.served
            if is_again:  # it is not the budget alone that refuses
                yield from self._refuse(config, lease, replace(ended, hint_seconds=None), said)
        yield "request_rate_limited", self.blocked_until_us
        yield from said

    def _refuse(
        self, config: RequestAdmissionConfig, lease: Admitted, ended: Ended, said: list[Said]
    ) -> Iterator[Said]:
        """Let the rule know of a refusal that speaks of load; note what it says of the limit."""
        is_steady, is_fresh = config.tuning.rule == "steady", lease.cuts == self.cuts
        cools_down = not is_steady or ended.in_flight == 1
        asked = ended.hint or (config.tuning.cooldown_seconds if cools_down else 0.0)
        pause, diagnostic = _believed(asked, config.max_cooldown_seconds)
        yield from diagnostic
        until_us = ended.now_us + to_us(pause)
        if cools_down:
            self.block(until_us)
        if self.ramp_us and not is_fresh:
            return
        self.limit, self.ramp_us = self.limit_at(ended.now_us), 0
        if not is_steady:
            said += aimd.refuse(self, config.tuning, _end(lease, ended))
            return
        settings = steady_settings(config, to_us(pause))
        end = _end(lease, ended, ended.hint and to_us(pause))
        end = replace(end, in_a_row=self.consecutive)
        said += steady.refuse(self, settings, end)
        minute.refuse(self, end, to_us(config.max_cooldown_seconds))


def _believed(seconds: float, longest: float) -> tuple[float, list[Said]]:
    """As much of a pause as is believed, and a word of it if it is less."""
    clamped: Said = ("request_release_diagnostic", "", "cooldown_clamped")
    return min(seconds, longest), [clamped] if seconds > longest else []


def _end(lease: Admitted, ended: Ended, hint_us: float = 0) -> LeaseEnd:
    return LeaseEnd(
        now_us=ended.now_us,
        in_flight=ended.in_flight,
        cuts=lease.cuts,
        limit=lease.limit,
        hint_us=int(hint_us),
        granted_us=lease.granted_us,
    )
