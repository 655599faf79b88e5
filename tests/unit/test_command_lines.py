"""What commands print fits a terminal of 80 columns, and cuts nothing."""

from __future__ import annotations

import pytest

from forebay.commands.demo import _row
from forebay.commands.lines import WIDTH, fitted
from forebay.commands.snapshot import snapshot_lines
from forebay.contracts.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from forebay.contracts.snapshots import BudgetSnapshot, DomainSnapshot, GlobalSnapshot

LARGE = 10**6


def test_parts_stand_on_as_few_lines_as_they_need() -> None:
    parts = ["a" * 30, "b" * 30, "", "c" * 30, "d" * 90, "e"]
    assert fitted(parts, first="> ", indent="  ") == [
        f"> {'a' * 30}  {'b' * 30}",
        f"  {'c' * 30}",
        f"  {'d' * 78}",
        f"  {'d' * 12}  e",
    ]


@pytest.mark.parametrize("model", ["mock-large", "m" * 70])
def test_snapshot_of_large_numbers_fits_and_shows_all(model: str) -> None:
    key = ProviderModelKey(provider_name="provider", model_id=model)
    common = {"captured_at": 0.0, "sequence": 1}
    leaks = {"overdue_leases": LARGE, "stray_waiters": LARGE}
    window = DomainSnapshot.model_construct(
        **common,
        resource=RequestResourceKey(provider_model=key, domain=RequestDomain.HEALTHCHECK),
        is_used=True,
        effective_max=LARGE,
        current_limit=LARGE,
        in_flight_count=LARGE,
        waiters=LARGE,
        cooldown_remaining_seconds=86_400.0,
        granted=LARGE**2,
        cuts=LARGE,
        minute_budget=LARGE,
        minute_served=LARGE,
        algorithm="steady",
        outlook=f"holds at {LARGE}, tries {LARGE} after {LARGE} more successes",
        leak_diagnostics=leaks,
    )
    quota = BudgetSnapshot.model_construct(
        budget="requests_per_minute", limit=LARGE**2, burst=LARGE**2, level=1e12, learned=LARGE
    )
    shard = GlobalSnapshot.model_construct(
        **common,
        static_cap=LARGE,
        aggregate_in_flight=LARGE,
        waiters=LARGE,
        member_count=LARGE,
        overdue_member_count=LARGE,
        leak_diagnostics=leaks,
        budgets=(quota,),
        domains={RequestDomain.HEALTHCHECK: window},
    )
    lines = snapshot_lines(key, shard)
    assert max(map(len, lines)) <= WIDTH
    assert " ".join("\n".join(lines).split()).count(str(LARGE)) >= 17
    assert "".join(line.strip() for line in lines).startswith(str(key))


def test_row_of_the_demo_is_continued_below_itself() -> None:
    shown = _row("shares", "atlas 45.4% (weight 50.0%), " * 4 + "/a/" + "long-path" * 12)
    assert [line[:11] for line in shown.splitlines()] == ["shares     ", *[" " * 11] * 2]
    assert all(len(line) <= WIDTH for line in shown.splitlines()[:-1])
    assert "long-path" * 12 in shown
