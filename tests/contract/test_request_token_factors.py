"""What estimates of tokens are worth is learned from real usage; what a daily refusal waits for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestDomain, RequestResourceKey
from forebay.contracts.outcomes import (
    RateLimitScope,
    RequestOutcomeKind,
    RequestReleaseOutcome,
    TokenUsage,
)
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.contracts.settings import RequestQuotas
from forebay.coordinator.requests.operations import Acquire, decode_lease
from forebay.coordinator.requests.releasing import Release
from forebay.coordinator.scripts.composing import compose
from tests.contract.shard_under_clock import (
    CLOCK_KEY,
    LARGE,
    SERVERS,
    UNDER_CLOCK,
    Shard,
    open_shard,
)

CHAT = RequestResourceKey(provider_model=LARGE)
NOON_US = 1_795_521_600_000_000  # 2026-11-24T12:00:00Z


@pytest.fixture(params=SERVERS)
def shard(request: pytest.FixtureRequest) -> Iterator[Shard]:
    for shard in open_shard(request):
        shard.join("m")
        quotas = RequestQuotas(tokens_per_minute=200_000)
        shard.register("m", 64, quotas=quotas, initial_limits={"chat": 64})
        yield shard


def ask(shard: Shard, cost: int, estimate: int | None) -> RequestAdmissionLease | str:
    item = RequestAdmissionItem(resource=CHAT, cost=cost, input_estimate=estimate)
    shard.join("m")  # a heartbeat
    result = shard.batch("m", Acquire(item, "").encode())[3][0]
    return decode_lease(item, result, "born", "m") if result[0] == "granted" else str(result[0])


def end(shard: Shard, lease: RequestAdmissionLease | str, **outcome: Any) -> None:
    assert not isinstance(lease, str)
    outcome.setdefault("kind", RequestOutcomeKind.SUCCESS)
    shard.batch("m", Release(lease, RequestReleaseOutcome(**outcome)).encode())


def left(shard: Shard) -> float:
    (level,) = (bucket.level for bucket in shard.snapshot().budgets)
    return level


def factor(shard: Shard) -> float:
    return shard.snapshot().domains[RequestDomain.CHAT].token_factor


def teach(shard: Shard, estimate: int, real: int, times: int = 60) -> None:
    for _ in range(times):
        lease = ask(shard, estimate, estimate)
        end(shard, lease, usage=TokenUsage(input_tokens=real))


def test_five_calls_of_forty_thousand_fit_into_two_hundred_thousand_a_minute(shard: Shard) -> None:
    answers = [ask(shard, 40_000, 40_000) for _ in range(20)]
    assert [answer == "waiting" for answer in answers] == [False] * 5 + [True] * 15


def test_real_usage_corrects_what_is_drawn_and_the_bound_of_the_output_stands(shard: Shard) -> None:
    assert factor(shard) == 1.0
    teach(shard, 100, 150)
    assert factor(shard) == pytest.approx(1.5, abs=0.05)
    before = left(shard)
    lease = ask(shard, 1_000 + 500, 1_000)
    assert before - left(shard) == 1_000 * factor(shard) + 500
    end(shard, lease, usage=TokenUsage(input_tokens=1_500, output_tokens=20))
    assert before - left(shard) == 1_520
    shown = f"{factor(shard):.2f}"
    assert any(line.split() == ["chat", shown] for line in shard.show())
    assert shard.audit().ok


@pytest.mark.parametrize(("real", "learned"), [(1, 0.25), (1_000, 4.0)])
def test_the_learned_factor_is_bounded(shard: Shard, real: int, learned: float) -> None:
    teach(shard, 100, real, 100)
    assert factor(shard) == pytest.approx(learned, abs=0.05)


@pytest.mark.parametrize(
    ("estimate", "outcome"),
    [
        (None, {"usage": TokenUsage(input_tokens=900)}),
        (8, {"usage": TokenUsage(input_tokens=900)}),
        (100, {}),
        (100, {"usage": TokenUsage(output_tokens=900)}),
        (100, {"usage": TokenUsage(input_tokens=900), "kind": RequestOutcomeKind.LOCAL_CANCELLED}),
    ],
)
def test_nothing_is_learned_from_what_says_little(
    shard: Shard, estimate: int | None, outcome: dict[str, Any]
) -> None:
    end(shard, ask(shard, 100, estimate), **outcome)
    assert factor(shard) == 1.0


def test_the_factor_alone_makes_no_request_too_large_for_ever(shard: Shard) -> None:
    teach(shard, 100, 400)
    shard.pass_time(60.0)
    assert not isinstance(ask(shard, 150_000, 150_000), str)
    assert left(shard) == 50_000


def test_an_estimate_is_at_most_the_cost_that_it_is_part_of() -> None:
    with pytest.raises(ConfigurationError, match="input_estimate is 8, expected at most the cost"):
        RequestAdmissionItem(resource=CHAT, cost=7, input_estimate=8)


@pytest.mark.parametrize(
    ("budget", "named"),
    [("tokens_per_day", "tokens_per_day"), ("calls_per_month", "calls_per_month"), ("odd", None)],
)
def test_a_daily_refusal_blocks_until_its_reset_and_show_says_when_and_why(
    shard: Shard, budget: str, named: str | None
) -> None:
    shard.client.set(CLOCK_KEY, NOON_US)
    end(
        shard,
        ask(shard, 100, 100),
        kind=RequestOutcomeKind.RATE_LIMITED,
        scope=RateLimitScope.QUOTA,
        retry_after_seconds=43_200.0 + 7.0,
        diagnostics={"budget": budget},
    )
    window = shard.snapshot().domains[RequestDomain.CHAT]
    assert window.blocked_for == named
    assert window.cooldown_remaining_seconds == 43_207.0
    outlook = f"waits for {named or 'a budget'} until 11-25 00:00:07 UTC"
    assert window.outlook == outlook
    assert any(outlook in line for line in shard.show())
    assert window.cuts == 0


@pytest.mark.parametrize("day", [0, 58, 59, 60, 364, 365, 789, 1_154, 20_000, 30_000])
def test_the_instant_of_a_refill_is_written_by_the_calendar(shard: Shard, day: int) -> None:
    now = datetime(2024, 1, 1, 23, 59, 58, tzinfo=UTC) + timedelta(days=day)
    text = compose("requests/look", UNDER_CLOCK).text
    at = text.index("local REFILL")
    code = text[at : text.index("-- The name of a budget")] + "return REFILL.instant(ARGV[1])"
    found = shard.client.eval(code, 0, round(now.timestamp() * 1e6))
    assert found.decode() == now.strftime("%m-%d %H:%M:%S UTC")
