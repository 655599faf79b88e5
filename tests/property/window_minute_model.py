"""A reference model of budgets by the minute, from design 11, *A budget by the minute*.

It differs from the page where docs/adr/0020 says so. Time is in microseconds of the shard's clock;
counts round down.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.property.window_state_model import LeaseEnd, Said, WindowState

MINUTE_US = 60_000_000
LATE_US = 5_000_000
ENOUGH, MOST = 3, 5
FEWEST = 8


def is_learned(window: WindowState) -> bool:
    """Three alike periods are a quota."""
    return window.periods >= ENOUGH


def is_over(window: WindowState, now_us: int) -> bool:
    """Whether the period that the last opening began has ended."""
    return now_us >= window.opened_us + MINUTE_US


def is_closed(window: WindowState, in_flight: int, now_us: int) -> bool:
    """At the budget the fleet drains; the one beyond it goes alone."""
    out = window.served - window.served_at_opening + in_flight
    most = min(window.used_up_at or window.budget, window.budget)
    is_reached = not is_over(window, now_us) and out >= most
    return is_learned(window) and in_flight > 0 and is_reached


def pass_time(window: WindowState, in_flight: int, now_us: int, in_a_row: int) -> None:
    """A period whose end nobody saw takes one of the evidence.

    While calls are refused its end may still be seen, up to 5 s late, or when the probe that is out
    comes back. That a budget expires so is told when a call happens to see it.
    """
    while is_learned(window) and is_over(window, now_us):
        if in_a_row and (in_flight or now_us < window.opened_us + MINUTE_US + LATE_US):
            return
        window.opened_us += MINUTE_US
        window.served_at_opening = window.served
        window.used_up_at = 0
        window.periods -= 1


def _weigh(
    window: WindowState, periods: int, reason: str, budget: int | None = None
) -> Iterator[Said]:
    """Change the evidence; say whether the budget is believed from now on, or no more."""
    before, after = window.budget, window.budget if budget is None else budget
    was_learned, window.periods, window.budget = is_learned(window), periods, after
    if is_learned(window) and not was_learned:
        yield ("request_minute_budget_learned", after, reason)
    if was_learned and not is_learned(window):
        yield ("request_minute_budget_dropped", before, reason)


def succeed(window: WindowState, end: LeaseEnd) -> Iterator[Said]:
    """An attempt was served; ``end.in_a_row`` were refused just before it."""
    is_fresh = end.cuts == window.cuts
    if end.in_a_row and is_fresh and window.limit == 1 and end.left == 0:
        yield from _open(window, end)
        return
    if not is_learned(window):
        return
    used = 0 if is_over(window, end.now_us) else window.served - window.served_at_opening
    if used > window.used_up_at:
        window.used_up_at = 0
    if used > window.budget:
        spoken_against = MOST - window.periods
        raised = window.budget + (max(2, window.budget // 100) << spoken_against)
        yield from _weigh(window, window.periods - 1, "exceeded", raised)


def _open(window: WindowState, end: LeaseEnd) -> Iterator[Said]:
    """Served again after nobody was: a period has ended and the next has begun."""
    used = window.served - 1 - window.served_at_opening
    apart_us = end.granted_us - window.opened_us
    if used < FEWEST and apart_us <= LATE_US:
        return  # it opens bit by bit
    is_a_minute = abs(apart_us - MINUTE_US) <= LATE_US
    is_alike = abs(used - window.budget) <= max(2, window.budget // 10)
    if not is_a_minute or used < FEWEST:
        yield from _weigh(window, 0, "uneven", used)
    elif window.periods and not is_alike:
        yield from _weigh(window, 1, "uneven", used)
    else:
        alike = window.periods + 1
        yield from _weigh(window, MOST if alike >= ENOUGH else alike, "alike", used)
    window.opened_us, window.served_at_opening = end.granted_us, window.served - 1
    window.used_up_at = 0


def refuse(window: WindowState, end: LeaseEnd, longest_us: int) -> None:
    """An attempt was refused, maybe since the period is used up.

    Two in a row, with nine tenths of the budget served or in flight: nobody follows them. When
    nobody is served any more, nine tenths having been served, wait for the boundary.
    """
    if not is_learned(window) or is_over(window, end.now_us):
        return
    used, about = window.served - window.served_at_opening, window.budget * 9 // 10
    if end.in_a_row >= 2 and (window.used_up_at or used + end.left >= about):
        window.used_up_at = used + end.left
    if end.left == 0 and used >= about:
        window.block(min(window.opened_us + MINUTE_US, end.now_us + longest_us))


def forget(window: WindowState) -> Iterator[Said]:
    """Forget the learned budget."""
    yield from _weigh(window, 0, "reset", 0)
    window.opened_us = window.served_at_opening = window.used_up_at = 0
