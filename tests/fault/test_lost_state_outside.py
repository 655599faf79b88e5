"""A part of ``make lost-state``: what the provider sees while a server loses state under load."""

from __future__ import annotations

import pytest

from tests.lost_state.losses import NEEDS_SNAPSHOT
from tests.lost_state.matrix import Given, run

LOSSES = (
    NEEDS_SNAPSHOT,
    "restart with AOF everysec, last second lost",
    "FLUSHALL",
    "restart without data",
    "evictions, allkeys-lru",
    "meta deleted",
    "leases deleted",
    "fifo deleted",
    "members garbled",
    "waiters garbled",
)
SHORT_CALL_SECONDS = 0.4
TTL_SECONDS = 1.5
"""So long that members on a busy machine are seldom expired: their calls would not count."""


@pytest.mark.timeout(240)
async def test_no_loss_of_state_lets_more_calls_through_than_the_cap() -> None:
    given = Given(call_seconds=SHORT_CALL_SECONDS, ttl_seconds=TTL_SECONDS, losses=LOSSES)
    seen = await run(given)  # which raises where caps, quotas, windows or the audit are not back
    assert {one.loss for one in seen} == set(LOSSES)
    assert all(one.was_there for one in seen)
    assert [one for one in seen if one.over] == []
