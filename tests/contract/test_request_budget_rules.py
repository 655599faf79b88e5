"""Design 03, *Quotas*, and docs/adr/0007: a pinned case per rule of what changes a budget."""

from __future__ import annotations

import json

from forebay.contracts.quotas import QuotaReading
from forebay.contracts.settings import RequestAdmissionConfig
from tests.contract.quota_shard import RPM, SECOND_US, TPM, answers, config, levels, opened
from tests.support_scripts import (
    START_US,
    Acquire,
    Learn,
    Register,
    Release,
    ScriptedShard,
    granted,
)


def limits(shard: ScriptedShard) -> dict[str, int]:
    capture = json.loads(shard.run("requests/snapshot", shard.keys.all, [0]))
    return {row["budget"]: row["limit"] for row in capture["budgets"]}


def events(shard: ScriptedShard, kind: str) -> list[dict[str, str]]:
    found = []
    for _id, fields in shard.client.xrange(shard.keys["events"]):
        event = {name.decode(): value.decode() for name, value in fields.items()}
        if event.get("kind") == kind:
            found.append(event)
    return found


# -- headers


def test_what_is_left_at_the_provider_lowers_the_level_and_never_raises_it(
    shard: ScriptedShard,
) -> None:
    opened(shard, requests_per_minute=10)
    shard.batch("m", Learn(QuotaReading(budget=RPM, remaining=4), START_US))
    assert levels(shard) == {"requests_per_minute": 4}
    shard.batch("m", Learn(QuotaReading(budget=RPM, remaining=9), START_US))
    assert levels(shard) == {"requests_per_minute": 4}
    (told,) = events(shard, "quota_adjusted")
    assert (told["budget"], told["level"], told["from"]) == ("requests_per_minute", "4", "10")


def test_an_older_reading_changes_nothing(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=10)
    shard.batch("m", Learn(QuotaReading(budget=RPM, remaining=4), START_US))
    shard.batch("m", Learn(QuotaReading(budget=RPM, remaining=1), START_US - 1))
    assert levels(shard) == {"requests_per_minute": 4}


def test_a_reading_from_the_future_is_one_of_now(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=60)
    shard.batch("m", Learn(QuotaReading(budget=RPM, remaining=4), START_US + 10**9))
    shard.advance(1)
    shard.batch("m", Learn(QuotaReading(budget=RPM, remaining=2), START_US + SECOND_US))
    assert levels(shard) == {"requests_per_minute": 2}


def test_a_lower_limit_holds_until_headers_rise_again(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=10)
    seen = []
    for limit in (6, 8, 10, 5, 50):
        shard.batch("m", Learn(QuotaReading(budget=RPM, limit=limit), START_US))
        seen.append(limits(shard)["requests_per_minute"])
    assert seen == [6, 8, 10, 5, 10]
    assert levels(shard) == {"requests_per_minute": 5}


def test_a_limit_that_nobody_registered_is_learned(shard: ScriptedShard) -> None:
    opened(shard)
    assert levels(shard) == {}
    shard.batch("m", Learn(QuotaReading(budget=RPM, remaining=3), START_US))
    assert levels(shard) == {}  # of nothing known, nothing is left
    shard.batch("m", Learn(QuotaReading(budget=RPM, limit=10, remaining=2), START_US))
    assert answers(shard, *(Acquire(f"a{i}") for i in range(3))) == [
        *("granted", "granted", "waiting")
    ]


def test_giving_back_lifts_no_level_above_what_the_provider_said(shard: ScriptedShard) -> None:
    opened(shard, tokens_per_minute=60)
    shard.batch("m", Acquire("a", cost=50))
    shard.batch("m", Learn(QuotaReading(budget=TPM, remaining=5), START_US))
    shard.advance(2)
    shard.batch("m", Release("a", used=0))
    assert levels(shard) == {"tokens_per_minute": 7}


def test_a_learned_refill_wakes_waiters(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=60)
    shard.batch("m", Learn(QuotaReading(budget=RPM, remaining=0), START_US))
    assert shard.batch("m", Acquire("a")).next_wake_us == START_US + SECOND_US


# -- registering


def test_registering_again_replaces_the_budgets(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=10, tokens_per_minute=100)
    shard.batch("m", Acquire("a", cost=30))
    shard.batch("m", Register("alias", 100, config(tokens_per_minute=50)))
    assert levels(shard) == {"tokens_per_minute": 50}
    shard.batch("m", Register("alias", 100, config()))
    assert levels(shard) == {}
    assert "budgets" not in shard.stored_keys()


def test_a_registration_without_quotas_leaves_the_fleets(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=10, bursts={RPM: 3})
    shard.batch("m", Acquire("a"), Acquire("b"))
    shard.join("other", ttl_seconds=3600)
    shard.batch("other", Register("alias", 100, RequestAdmissionConfig()))
    assert levels(shard) == {"requests_per_minute": 1}
    shard.batch("m", Register("alias", 100, config(requests_per_minute=10, bursts={RPM: 3})))
    assert levels(shard) == {"requests_per_minute": 1}


def test_a_registration_without_quotas_bounds_nothing(shard: ScriptedShard) -> None:
    shard.join("m", ttl_seconds=3600)
    shard.batch("m", Register("alias", 100, RequestAdmissionConfig()))
    assert levels(shard) == {}
    assert "budgets" not in shard.stored_keys()


def test_a_budget_that_is_registered_no_more_bounds_nobody_from_then_on(
    shard: ScriptedShard,
) -> None:
    opened(shard, requests_per_minute=1)
    shard.batch("m", *(Acquire(f"a{i}") for i in range(3)))
    assert granted(shard.batch("m", Register("alias", 100, config())).notices) == ["a1", "a2"]
    assert levels(shard) == {}


def test_registering_the_same_again_changes_nothing(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=10)
    shard.batch("m", Acquire("a"))
    shard.batch("m", Register("alias", 100, config(requests_per_minute=10)))
    assert levels(shard) == {"requests_per_minute": 9}


def test_a_raised_budget_refills_at_its_new_rate(shard: ScriptedShard) -> None:
    opened(shard, requests_per_minute=60, bursts={RPM: 1})
    shard.batch("m", Acquire("a"), Acquire("b"))
    reply = shard.batch("m", Register("alias", 100, config(requests_per_minute=600)))
    assert reply.next_wake_us == START_US + SECOND_US // 10
