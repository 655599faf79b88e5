"""A reference model of the window rule ``steady``, from its text in docs/window.md.

Comments name the sentence of that page that a branch follows. Time is in microseconds of the
shard's clock; counts round down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.property import window_minute_model as minute
from tests.property.window_state_model import LeaseEnd, Said, WindowState

MOST_OF_NOISE = 2
"""Refusals with nothing served between that may still be the provider's noise."""
TRIES_AFTER_FALL = 3
"""So many tries come soon after a fall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadySettings:
    """What a fleet may set of the rule."""

    successes_until_try: int = 150
    round_successes: int = 24
    cooldown_us: int = 2_000_000

    @property
    def successes_until_soon_try(self) -> int:
        """Sentence 9: after a fall, a third of the usual."""
        return max(1, self.successes_until_try // 3)


# -- a success


def succeed(window: WindowState, settings: SteadySettings, end: LeaseEnd) -> Iterator[Said]:
    """An attempt was served."""
    yield from minute.succeed(window, end)
    is_full, is_fresh = end.in_flight >= window.limit, end.cuts == window.cuts
    if is_fresh:
        window.row = 0
        if window.top:  # sentence 7 or 8, when serving goes on
            _note_ceiling(window, max(window.limit, window.top))
            window.top = 0
    if end.now_us < max(window.blocked_until_us, window.quiet_until_us) or not is_full:
        return
    if window.limit < window.ceiling:
        if is_fresh:
            yield from _come_back(window)
    elif window.step or window.limit < window.effective_max:  # sentence 6
        window.credit += 1
        if window.credit >= _credit_needed(window, settings):
            yield from _take_step(window)


def _note_ceiling(window: WindowState, ceiling: int) -> None:
    window.noted = 0 if ceiling >= window.effective_max else ceiling


def _is_climb(window: WindowState) -> bool:
    """Whether it goes up to where nobody was ever refused, as from birth."""
    return bool(window.step) and not window.noted


def _come_back(window: WindowState) -> Iterator[Said]:
    """Sentence 5, and sentence 1 of a climb."""
    window.untold_from = window.untold_from or window.limit
    window.limit += 1
    if window.limit == window.ceiling:
        yield from window.tell_return()
        if window.noted:
            yield ("request_soft_ceiling_recovered",)


def _credit_needed(window: WindowState, settings: SteadySettings) -> int:
    if window.step:
        return max(settings.round_successes, window.limit)
    if window.soon_tries:
        return settings.successes_until_soon_try
    return settings.successes_until_try


def _take_step(window: WindowState) -> Iterator[Said]:
    """Confirm the step before, and take the next while there is room for one."""
    was_noted = window.noted
    _note_ceiling(window, window.limit)
    window.credit = 0
    if window.limit == window.effective_max:
        window.step = 0
        if was_noted:
            yield ("request_fully_recovered",)
        return
    window.step = max(1, min(2 * window.step, window.limit // 4))
    yield from window.move(min(window.effective_max, window.limit + window.step), "try")


# -- a refusal


def refuse(window: WindowState, settings: SteadySettings, end: LeaseEnd) -> Iterator[Said]:
    """An attempt was refused by the provider's rate limit."""
    is_full, is_fresh = end.in_flight >= window.limit, end.cuts == window.cuts
    limit, reason = window.limit, "refused"
    served_since = window.served - window.served_at_refusal
    if is_fresh:
        _note_refusal(window, settings, end.left, is_full=is_full)
        reason = "row" if window.row >= 2 else "refused"
    if end.in_a_row > MOST_OF_NOISE:
        _note_burst(window, settings, end.left)
    if window.top:
        window.top = max(1, end.left)
    if is_full:  # sentences 2 and 3
        fall = 2 ** max(0, window.row - 2) if is_fresh else 0
        limit = max(1, min(end.left, max(limit // 2, limit - fall)))
    elif is_fresh:
        limit = max(1, end.left, limit * 3 // 4)
    if end.hint_us:  # sentence 10
        window.quiet_until_us = max(window.quiet_until_us, end.now_us + end.hint_us)
        is_long = end.hint_us >= settings.cooldown_us
        few = max(1, window.limit // 8)
        if is_long and is_fresh and window.row >= 3 and served_since <= few:
            window.row = 0
            limit, reason = max(1, limit // 4), "hint"
            window.block(end.now_us + end.hint_us)
    if end.left == 0:  # sentence 4
        if window.top and not window.noted:
            window.step = 1  # nothing was learned yet: it climbs as from birth
        window.top = 0
        limit, reason = 1, "outage"
        window.block(end.now_us + (end.hint_us or settings.cooldown_us))
    yield from window.move(limit, reason)


def _note_burst(window: WindowState, settings: SteadySettings, left: int) -> None:
    """So many refusals in a row are no noise, whenever their leases were granted."""
    if left < window.ceiling * 4 // 5:
        window.soon_tries = TRIES_AFTER_FALL
    if not window.top:
        window.credit = window.step = 0
        window.top = max(1, left)


def _note_refusal(
    window: WindowState, settings: SteadySettings, left: int, *, is_full: bool
) -> None:
    """Note what a fresh refusal says of the ceiling and of the try.

    The climb from birth is a try whose ceiling nobody knows yet: what ends it is what is refused.
    """
    is_beyond = left + 1 > window.ceiling or (is_full and _is_climb(window))
    is_lone = window.served - window.served_at_refusal >= settings.round_successes
    window.cuts += 1
    window.row += 1
    window.served_at_refusal = window.served
    if is_beyond and window.step:
        window.soon_tries = max(0, window.soon_tries - 1)
    if not is_lone and left < window.ceiling * 4 // 5:
        window.soon_tries = TRIES_AFTER_FALL
    if is_beyond or not is_lone:
        window.top = max(1, left)
        window.credit = window.step = 0


# -- birth and caps


def birth_limit(effective_max: int, initial: int | None) -> int:
    """The first limit of a new window: at 4, or at its initial limit, below all that is allowed."""
    return max(1, min(4 if initial is None else initial, effective_max))


def born(effective_max: int, initial: int | None = None) -> WindowState:
    """A window is born in a climb to all that is allowed, which is a try."""
    limit = birth_limit(effective_max, initial)
    return WindowState(effective_max=effective_max, limit=limit, step=1)


def recap(window: WindowState, effective_max: int) -> Iterator[Said]:
    """The cap or a clamp moved: raising lifts one at its old maximum that has no ceiling noted.

    Nobody has served what is allowed now, so that is a climb as from birth.
    """
    old, window.effective_max = window.effective_max, effective_max
    if effective_max < window.limit:
        window.credit = window.step = 0
        yield from window.move(effective_max, "cap")
    elif effective_max > old and not window.noted:
        window.step = 1
        if window.limit == old:
            yield from window.move(effective_max, "cap")
