"""A reference model of the window rule ``aimd``, from design 03, *The window*, alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

from forebay.contracts.settings import RequestAdmissionTuningConfig
from tests.property.window_state_model import LeaseEnd, Said, WindowState


def succeed(window: WindowState, tuning: RequestAdmissionTuningConfig) -> Iterator[Said]:
    """An attempt was served outside a cooldown."""
    window.credit += 1
    if window.credit < tuning.successes_until_increase:
        return
    window.credit = 0
    before = window.limit
    after = min(window.effective_max, before + tuning.additive_increase_step)
    if after <= before:
        return
    yield from window.move(after, "success")
    if before < window.noted <= after:
        yield ("request_soft_ceiling_recovered",)
    if window.noted and after == window.effective_max:
        window.noted = 0
        yield ("request_fully_recovered",)


def refuse(
    window: WindowState, tuning: RequestAdmissionTuningConfig, end: LeaseEnd
) -> Iterator[Said]:
    """An attempt was refused: one cut per congestion event."""
    window.credit = 0
    if end.cuts == window.cuts:
        window.cuts += 1
        window.noted = window.noted or end.limit
        factor = tuning.multiplicative_decrease_factor
        yield from window.move(max(1, math.floor(window.limit * factor)), "rate_limited")


def recap(window: WindowState, effective_max: int) -> Iterator[Said]:
    """Lowering lowers at once; raising lifts one at its old maximum that has no ceiling noted."""
    old, window.effective_max = window.effective_max, effective_max
    if effective_max < window.limit:
        yield from window.move(effective_max, "cap")
    elif effective_max > old and not window.noted:
        window.step = 0  # a climb of the other rule is over
        if window.limit == old:
            yield from window.move(effective_max, "cap")
