"""Why a waiter, lease, group or provider/model does not move: each sentence where it is true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forebay.contracts.explanations import Explanation, Reason
from forebay.contracts.identity import RequestDomain
from forebay.contracts.settings import RequestAdmissionTuningConfig, RequestQuotas
from forebay.coordinator.requests.explaining import decode_facts, explain_in_shard
from tests.contract.shard_under_clock import LARGE, SERVERS, START_US, Shard, open_shard

AIMD = {"tuning": RequestAdmissionTuningConfig(rule="aimd")}
NAME = str(LARGE)


@pytest.fixture(params=SERVERS)
def shard(request: pytest.FixtureRequest) -> Iterator[Shard]:
    """A shard with a cap of 2, whose windows are born at the cap."""
    for shard in open_shard(request):
        shard.join("m")
        shard.register("m", 2, **AIMD)
        yield shard
        assert shard.audit().ok


def explained(shard: Shard, name: str) -> list[Explanation]:
    return explain_in_shard(decode_facts(LARGE, shard.run("requests/explain", 100, name)), name)


def reasons(shard: Shard, name: str) -> dict[str, Reason]:
    (one,) = explained(shard, name)
    assert all(reason.says.endswith(".") for reason in one.reasons)
    assert one == Explanation.model_validate_json(one.model_dump_json())
    return {reason.code: reason for reason in one.reasons}


def fill(shard: Shard, **terms: Any) -> None:
    for attempt_id in ("a", "b"):
        assert shard.acquire("m", attempt_id, **terms) == "granted"


def refuse(shard: Shard, lease_id: str, seconds: float) -> None:
    shard.batch("m", ("release", lease_id, "rate_limited", round(seconds * 1e6), "born", "", ""))


def test_an_unknown_name_has_no_explanation(shard: Shard) -> None:
    assert explained(shard, "a") == []


def test_a_waiter_behind_a_full_window_names_the_oldest_leases(shard: Shard) -> None:
    fill(shard, group="busy")
    shard.pass_time(4)
    assert shard.acquire("m", "w", "tenant", weight=2, wait="5000000") == "waiting"
    found = reasons(shard, "w")
    assert list(found) == ["in_line", "window_full", "deadline"]
    assert "0 of its group tenant (weight 2) wait before it in chat" in found["in_line"].says
    assert set(found["window_full"].holders) == {"a", "b"}
    assert "busy on m for 4.0 s" in found["window_full"].says
    assert found["deadline"].until == pytest.approx(START_US / 1e6 + 9)
    shard.release("m", "a")
    assert explained(shard, "w")[0].kind == "lease"


def test_place_of_a_waiter_counts_its_group_and_the_groups_before(shard: Shard) -> None:
    fill(shard)
    for attempt_id, group in (("x", "first"), ("y", "second"), ("z", "second")):
        assert shard.acquire("m", attempt_id, group) == "waiting"
    assert "1 of its group second (weight 1) wait before it in chat, and 1 of 2 groups stand" in (
        reasons(shard, "z")["in_line"].says
    )


def test_a_cap_that_other_domains_use_is_told_with_them(shard: Shard) -> None:
    fill(shard, domain=RequestDomain.EMBEDDING)
    assert shard.acquire("m", "w", "tenant") == "waiting"
    found = reasons(shard, "w")
    assert list(found) == ["in_line", "cap_reached"]
    assert "2 embedding in flight" in found["cap_reached"].says
    shard.release("m", "a")
    assert "cap_reached" not in reasons(shard, NAME)


def test_a_cooldown_says_until_when_and_its_end_ends_it(shard: Shard) -> None:
    fill(shard)
    refuse(shard, "a", 30)
    assert shard.acquire("m", "w", "tenant") == "waiting"
    found = reasons(shard, "w")["cooldown"]
    assert "chat cools down for 30 s more" in found.says
    assert found.until == pytest.approx(START_US / 1e6 + 30)
    shard.pass_time(10)
    assert "20 s more" in reasons(shard, "w")["cooldown"].says
    assert [one.kind for one in explained(shard, "w")] == ["waiter"]
    shard.pass_time(20)
    assert "cooldown" not in reasons(shard, "w")


def test_a_quota_that_is_used_up_names_itself_and_its_end(shard: Shard) -> None:
    shard.register("m", 2, **AIMD, quotas=RequestQuotas(requests_per_minute=1))
    assert shard.acquire("m", "a") == "granted"
    assert shard.acquire("m", "w") == "waiting"
    found = reasons(shard, "w")
    assert list(found) == ["in_line", "quota"]
    assert found["quota"].resource == "requests_per_minute"
    assert found["quota"].until == pytest.approx(START_US / 1e6 + 60)


def test_a_lease_names_its_member_and_one_that_is_overdue(shard: Shard) -> None:
    fill(shard)
    shard.pass_time(3)
    found = reasons(shard, "a")
    assert list(found) == ["held"]
    assert "Member m has held it for 3.0 s" in found["held"].says
    shard.pass_time(13)
    assert list(reasons(shard, "a")) == ["member_overdue"]


def test_a_group_tells_its_weight_its_calls_and_its_place(shard: Shard) -> None:
    fill(shard, group="tenant")
    assert list(reasons(shard, "tenant")) == ["weight", "not_in_line"]
    assert shard.acquire("m", "w", "tenant", weight=3) == "waiting"
    found = reasons(shard, "tenant")
    assert list(found) == ["weight", "in_line", "window_full"]
    assert "weight 3; calls in flight: 2 in chat" in found["weight"].says
    assert "1 call waits in chat; it is the 1st of 1 group there" in found["in_line"].says


@pytest.mark.parametrize("name", [NAME, LARGE.model_id, LARGE.provider_name])
def test_a_provider_model_tells_its_windows_and_what_moved_them_last(
    shard: Shard, name: str
) -> None:
    fill(shard)
    found = reasons(shard, name)
    assert list(found) == ["shard", "window"]
    assert "Cap 2, 2 in flight, 0 wait, 1 member of which 0 overdue" in found["shard"].says
    assert "went from" not in found["window"].says
    refuse(shard, "a", 1)
    shard.pass_time(2)
    assert "2.0 s ago it went from 2 to 1 (rate_limited)" in reasons(shard, name)["window"].says


def test_a_shard_without_a_live_registration_says_so(shard: Shard) -> None:
    fill(shard)
    assert "not_registered" not in reasons(shard, NAME)
    shard.batch("m", ("leave",))
    assert "not_registered" in reasons(shard, NAME)


def test_looking_changes_nothing(shard: Shard) -> None:
    fill(shard)
    assert shard.acquire("m", "w", "tenant") == "waiting"
    before = {key: shard.client.dump(key) for key in shard.client.keys("*")}
    for name in ("w", "a", "tenant", NAME, "nothing"):
        explained(shard, name)
    assert {key: shard.client.dump(key) for key in shard.client.keys("*")} == before
