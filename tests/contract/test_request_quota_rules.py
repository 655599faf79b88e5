"""Design 03, *Quotas*, and docs/adr/0007: a pinned case per rule of drawing and settling."""

from __future__ import annotations

import pytest

from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.settings import RequestAdmissionConfig
from tests.contract.quota_shard import RPM, SECOND_US, TPM, answers, config, levels, opened
from tests.support_scripts import (
    CHAT,
    EMBEDDING,
    IMAGE,
    START_US,
    Acquire,
    Cancel,
    Learn,
    Release,
    ScriptedShard,
    granted,
)
from tests.support_state import audited

# -- draws


def test_a_budget_starts_full_and_bounds_what_goes_at_once(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=3)
    assert (
        answers(shard, *(Acquire(f"a{i}") for i in range(5))) == ["granted"] * 3 + ["waiting"] * 2
    )


def test_a_burst_is_less_than_a_budget(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=60, bursts={RPM: 2})
    assert answers(shard, *(Acquire(f"a{i}") for i in range(3))) == ["granted"] * 2 + ["waiting"]


def test_a_waiter_for_quota_is_woken_at_the_exact_instant(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=60, bursts={RPM: 1})
    reply = shard.batch("m", Acquire("a"), Acquire("b"), Acquire("c"))
    assert reply.next_wake_us == START_US + SECOND_US
    shard.advance(0.999999)
    assert granted(shard.batch("m").notices) == []
    shard.advance(0.000001)
    reply = shard.batch("m")
    assert granted(reply.notices) == ["b"]
    assert reply.next_wake_us == START_US + 2 * SECOND_US


def test_looking_does_not_move_the_instant(shard: ScriptedShard) -> None:
    opened(shard, tokens_per_minute=7)
    shard.batch("m", Acquire("a", cost=7))
    wakes = {shard.batch("m", Acquire("b", cost=3)).next_wake_us}
    for _ in range(5):
        shard.advance(0.7)
        wakes.add(shard.batch("m").next_wake_us)
    assert len(wakes) == 1


def test_all_budgets_are_charged_or_none(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=10, tokens_per_minute=100, tokens_per_day=1000)
    assert answers(shard, Acquire("a", cost=70), Acquire("b", cost=70)) == ["granted", "waiting"]
    assert levels(shard) == {
        "requests_per_minute": 9,
        "tokens_per_minute": 30,
        "tokens_per_day": 930,
    }


def test_what_never_fits_is_denied_at_once(shard: ScriptedShard) -> None:
    opened(shard, tokens_per_minute=100, bursts={TPM: 50})
    assert shard.ask("m", Acquire("a", cost=51)) == [
        *("denied", "hard_policy_denial", 0, 0, "never_fits", "tokens_per_minute")
    ]
    assert shard.ask("m", Acquire("b", cost=50))[0] == "granted"


def test_what_only_headers_made_too_large_goes_when_the_bucket_is_full(
    shard: ScriptedShard,
) -> None:
    opened(shard, tokens_per_minute=100)
    shard.batch("m", Learn(QuotaReading(budget=TPM, limit=60), START_US))
    shard.batch("m", Acquire("small", cost=30))
    assert answers(shard, Acquire("large", cost=90)) == ["waiting"]
    shard.advance(30)
    assert granted(shard.batch("m").notices) == ["large"]
    assert levels(shard) == {"tokens_per_minute": -30}


def test_try_says_quota_and_when(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=60, tokens_per_minute=60, bursts={RPM: 1})
    shard.batch("m", Acquire("a", cost=60))
    assert shard.ask("m", Acquire("b", cost=10, wait="try")) == [
        *("denied", "quota", START_US + 10 * SECOND_US, 10 * SECOND_US)
    ]


# -- order


def test_nobody_draws_from_what_the_next_in_order_lacks(shard: ScriptedShard) -> None:
    opened(shard, tokens_per_minute=60)
    shard.batch("m", Acquire("a", cost=60, group="first"))
    shard.advance(20)
    shard.batch("m", Acquire("large", cost=50, group="large"))
    assert answers(shard, Acquire("small", EMBEDDING, cost=5, group="small")) == ["waiting"]
    assert shard.ask("m", Acquire("try", EMBEDDING, cost=5, group="other", wait="try"))[1] == (
        "queued_waiters_ahead"
    )
    shard.advance(30)
    assert granted(shard.batch("m").notices) == ["large"]


def test_who_draws_nothing_of_it_goes_in_another_domain(shard: ScriptedShard) -> None:
    opened(shard, tokens_per_minute=60)
    shard.batch("m", Acquire("a", cost=60), Acquire("large", cost=50))
    assert answers(shard, Acquire("free", EMBEDDING, group="other")) == ["granted"]


def test_a_group_with_a_smaller_tag_goes_before_who_lacks_quota(shard: ScriptedShard) -> None:
    opened(shard, tokens_per_minute=60)
    shard.batch("m", *(Acquire(f"a{i}", group="busy", cost=15) for i in range(3)))
    assert answers(shard, Acquire("large", group="busy", cost=50)) == ["waiting"]
    assert answers(shard, Acquire("small", group="new", cost=5)) == ["granted"]


def test_a_newcomer_stands_behind_its_own_group(shard: ScriptedShard) -> None:
    opened(shard, tokens_per_minute=60)
    shard.batch("m", Acquire("a", cost=40), Acquire("large", cost=50))
    assert answers(shard, Acquire("small", cost=1)) == ["waiting"]


def test_what_a_waiter_kept_until_its_deadline_is_the_next_ones_at_once(
    shard: ScriptedShard,
) -> None:
    opened(shard, tokens_per_minute=60)
    shard.batch("m", Acquire("a", cost=60), Acquire("large", cost=60, wait=2.0))
    shard.batch("m", Acquire("small", cost=1))
    shard.advance(2)
    reply = shard.batch("m")
    assert [notice[1] for notice in reply.notices] == ["large", "small"]
    assert granted(reply.notices) == ["small"]


def test_the_end_of_a_newcomers_turn_may_be_anothers_chance(shard: ScriptedShard) -> None:
    opened(shard, tokens_per_minute=60, bursts={TPM: 20})
    shard.batch("m", Acquire("a", group="early", cost=15), Acquire("b", group="late"))
    assert answers(
        shard, Acquire("large", group="early", cost=20), Acquire("small", EMBEDDING, "late", cost=3)
    ) == ["waiting", "waiting"]
    reply = shard.batch("m", Acquire("free", IMAGE, group="early"))
    assert (reply.results[0][0], granted(reply.notices)) == ("granted", ["small"])


# -- settlement


@pytest.mark.parametrize(
    ("outcome", "used", "left"),
    [
        (Outcome.SUCCESS, 10, {"requests_per_minute": 9, "tokens_per_minute": 90}),
        (Outcome.SUCCESS, 300, {"requests_per_minute": 9, "tokens_per_minute": -200}),
        (Outcome.SUCCESS, None, {"requests_per_minute": 9, "tokens_per_minute": 60}),
        (Outcome.PROVIDER_FAILURE, None, {"requests_per_minute": 9, "tokens_per_minute": 60}),
        (Outcome.SUCCESS, 0, {"requests_per_minute": 9, "tokens_per_minute": 100}),
        (Outcome.LOCAL_CANCELLED, 0, {"requests_per_minute": 10, "tokens_per_minute": 100}),
        (Outcome.LOCAL_CANCELLED, None, {"requests_per_minute": 9, "tokens_per_minute": 60}),
    ],
)
def test_a_release_settles_by_usage(
    shard: ScriptedShard, outcome: Outcome, used: int | None, left: dict[str, float]
) -> None:
    opened(shard, requests_per_minute=10, tokens_per_minute=100)
    shard.batch("m", Acquire("a", cost=40))
    shard.batch("m", Release("a", outcome, used=used))
    assert levels(shard) == left


def test_a_member_lost_gives_nothing_back(shard: ScriptedShard) -> None:
    shard.open(4, "m", "lost", config=config(tokens_per_minute=100, tokens_per_day=100))
    shard.batch("lost", Acquire("a", cost=40))
    shard.advance(10)
    shard.heartbeat("m")
    shard.advance(10)
    shard.batch("m")
    assert levels(shard)["tokens_per_day"] == pytest.approx(60 + 20 * 100 / 86400)


def test_a_cancelled_grant_gives_all_back(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=10, tokens_per_minute=100)
    shard.batch("m", Acquire("a", cost=40))
    shard.batch("m", Cancel("a"))
    assert levels(shard) == {"requests_per_minute": 10, "tokens_per_minute": 100}


# -- timeouts


def test_a_timeout_names_the_budget_that_is_lacking_longest(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=60, bursts={RPM: 1}, tokens_per_minute=60)
    assert answers(shard, Acquire("a", cost=60)) == ["granted"]
    assert answers(shard, Acquire("b", wait=2, cost=30), Acquire("c", wait=2)) == ["waiting"] * 2
    assert shard.ask("m", Acquire("d", wait=0)) == [
        *("denied", "queue_timeout", START_US + SECOND_US, SECOND_US),
        *("lacks_quota", "requests_per_minute"),
    ]
    shard.advance(2)
    when = [START_US + 30 * SECOND_US, 28 * SECOND_US]
    assert shard.batch("m").notices == [
        ["denied", "b", "queue_timeout", *when, "lacks_quota", "tokens_per_minute"],
        ["denied", "c", "queue_timeout", 0, 0],  # behind b, and lacks nothing itself
    ]


def test_a_timeout_for_a_slot_names_no_budget(shard: ScriptedShard) -> None:
    shard.open(1, config=config(requests_per_minute=60))
    assert answers(shard, Acquire("a")) == ["granted"]
    assert shard.ask("m", Acquire("b", wait=0)) == ["denied", "queue_timeout", 0, 0]


# -- fair by tokens


def test_fair_by_tokens_heavy_prompts_pay_for_themselves(shard: ScriptedShard) -> None:
    shard.open(1, config=RequestAdmissionConfig(fair_by="tokens"))
    shard.batch("m", Acquire("first", group="x"))
    shard.batch("m", *(Acquire(f"h{i}", group="heavy", cost=30) for i in range(3)))
    shard.batch("m", *(Acquire(f"l{i}", group="light", cost=10) for i in range(9)))
    order, lease = [], "first"
    for _ in range(8):
        (lease,) = granted(shard.batch("m", Release(lease)).notices)
        order.append(lease[0])
    assert [order[:4].count("h"), order[4:].count("h")] == [1, 1]


def test_fair_by_tokens_is_settled_by_the_real_usage(shard: ScriptedShard) -> None:
    shard.open(1, config=RequestAdmissionConfig(fair_by="tokens"))
    shard.batch("m", Acquire("a", group="liar", cost=1), Acquire("b", group="liar", cost=1))
    shard.batch("m", *(Acquire(f"c{i}", group="honest", cost=10) for i in range(4)))
    order, lease = [], "a"
    for used in (35, 10, 10, 10, 10):
        (lease,) = granted(shard.batch("m", Release(lease, used=used)).notices)
        order.append(lease)
    assert order == ["c0", "c1", "c2", "c3", "b"]


def test_a_settled_turn_moves_the_group_in_every_line(shard: ScriptedShard) -> None:
    shard.open(1, config=RequestAdmissionConfig(fair_by="tokens"))
    shard.batch("m", Acquire("a", group="g", cost=1))
    shard.batch("m", Acquire("b", CHAT, group="g", cost=1), Acquire("c", EMBEDDING, group="g"))
    shard.batch("m", Release("a", used=100))
    audited(shard.client, shard.keys)
