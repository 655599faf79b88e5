"""The observers of `tests.chaos` find what a loss of the server's state does not excuse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.losses import Enqueued, JobFates, StateLoss, Stored, silent, with_unheard
from tests.chaos.observers import ALL, CapMove, LossPeriod, read_jobs

END = 90.0
J = Enqueued("j", 1.0, 1.1)
WAITED = read_jobs([])
ENDED = read_jobs([[2.0, "begin", "j", 7], [3.0, "end", "j", 7]])
ENDED_AFTER = read_jobs([[2.0, "begin", "j", 7], [23.0, "end", "j", 7]])
BEGUN_AGAIN = read_jobs([[2.0, "begin", "j", 7], [24.0, "begin", "j", 8], [25.0, "end", "j", 8]])
NOTHING = Stored(frozenset(), frozenset())
PAYLOAD = Stored(frozenset(), frozenset({"j"}))
RESULT = Stored(frozenset({"j"}), frozenset())


def emptied(had: Stored) -> StateLoss:
    return StateLoss(begin=10.0, end=10.5, had=had)


def failed_over(since: float) -> StateLoss:
    return StateLoss(begin=since, end=10.5, since=since)


def unfinished(jobs: Any, results: dict[str, bool], *losses: StateLoss, **others: Any) -> list[str]:
    fates = JobFates(jobs=jobs, results=results, losses=losses, **{"deaths": {}, **others})
    return [difference.what for difference in fates.unfinished([J], END)]


@pytest.mark.parametrize(
    ("jobs", "results", "what"),
    [
        (WAITED, {}, "never ran"),
        (ENDED, {}, "no result"),
        (ENDED, {"j": False}, "failed"),
        (WAITED, {"j": True}, "has a result and never ran"),
    ],
)
def test_without_a_loss_each_job_must_run_to_its_end_and_succeed(
    jobs: Any, results: dict[str, bool], what: str
) -> None:
    (found,) = unfinished(jobs, results)
    assert what in found
    assert unfinished(ENDED, {"j": True}) == []


def test_a_job_whose_payload_was_deleted_may_end_as_lost_but_must_end() -> None:
    without = frozenset({"j"})
    assert unfinished(WAITED, {"j": False}, without_payload=without) == []
    assert unfinished(WAITED, {}, without_payload=without) != []


def test_a_deleted_key_of_a_pool_excuses_no_job() -> None:
    assert unfinished(WAITED, {}, StateLoss(begin=10.0, end=10.1)) != []


def test_of_an_emptied_server_a_job_that_waited_is_gone() -> None:
    assert unfinished(WAITED, {}, emptied(PAYLOAD)) == []
    assert unfinished(WAITED, {}, StateLoss(begin=0.5, end=0.9, had=NOTHING)) != []


def test_a_job_that_was_gone_before_the_server_was_emptied_is_found() -> None:
    assert len(unfinished(WAITED, {}, emptied(NOTHING))) == 1
    (found,) = unfinished(
        ENDED_AFTER, {}, emptied(PAYLOAD), StateLoss(begin=30, end=31, had=NOTHING)
    )
    assert "no result" in found


def test_a_result_that_was_there_before_the_server_was_emptied_counts() -> None:
    assert unfinished(ENDED, {}, emptied(RESULT)) == []
    assert unfinished(WAITED, {}, emptied(RESULT)) != []
    assert unfinished(ENDED, {"j": False}, emptied(RESULT)) != []


def test_a_job_that_runs_while_the_server_is_emptied_must_leave_a_result() -> None:
    assert unfinished(ENDED_AFTER, {}, emptied(PAYLOAD)) != []
    assert unfinished(ENDED_AFTER, {"j": True}, emptied(PAYLOAD)) == []


@pytest.mark.parametrize(
    "excuse",
    [
        {"deaths": {"7": 11.0}},
        {"away": [LossPeriod(9.0, 11.0, "7")]},
        {"away": [LossPeriod(12.0, 14.0, ALL)]},
    ],
)
def test_a_running_job_that_its_process_could_not_state_is_gone(excuse: dict[str, Any]) -> None:
    assert unfinished(BEGUN_AGAIN, {}, emptied(PAYLOAD)) != []
    assert unfinished(BEGUN_AGAIN, {}, emptied(PAYLOAD), **excuse) == []


def test_a_failover_excuses_the_jobs_that_the_replica_missed_alone() -> None:
    assert unfinished(WAITED, {}, failed_over(1.05)) == []
    assert unfinished(WAITED, {}, failed_over(1.2)) != []


def test_calls_of_a_process_that_could_not_state_them_do_not_count() -> None:
    loss = emptied(NOTHING)
    assert silent([loss], [LossPeriod(9.0, 12.0, "7")]) == [LossPeriod(10.0, 14.0, "7")]
    assert silent([loss], [LossPeriod(5.0, 9.0, "7"), LossPeriod(14.0, 15.0, "7")]) == []


def test_a_cap_that_no_member_had_heard_of_may_be_undone_by_a_loss() -> None:
    loss = StateLoss(begin=10.0, end=10.5)
    early = [CapMove(0.0, 0.0, 8), CapMove(5.0, 5.1, 3)]
    assert with_unheard(early, [loss]) == early
    late = [CapMove(0.0, 0.0, 8), CapMove(9.0, 9.1, 3)]
    assert with_unheard(late, [loss]) == [*late, CapMove(10.0, 10.5, 8)]
