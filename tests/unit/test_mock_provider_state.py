from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.mock_provider.draws import ServiceDraws
from forebay.mock_provider.log import ProviderLog, RequestRecord, TruthRecord
from forebay.mock_provider.state import Caller, ProviderState, Refusal, Service
from forebay.mock_provider.truth import ProviderTruth, TruthStep


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def make(clock=None, log=None, seed=0, **fields):
    return ProviderState(ProviderTruth(**fields), seed=seed, log=log, clock=clock or Clock())


def ask(state, *, tokens=1, content="c"):
    caller = Caller(path="/v1/x", arrived_at=state.elapsed_seconds(), model="m")
    return state.admit(caller, tokens=tokens, digest=content)


def served(state, **more):
    decision = ask(state, **more)
    assert isinstance(decision, Service)
    return decision


def refused(state, **more):
    decision = ask(state, **more)
    assert isinstance(decision, Refusal)
    return decision


def records(state, kind=RequestRecord):
    return [record for _, record in state.log.since() if isinstance(record, kind)]


def test_one_above_the_concurrency_is_refused_until_a_slot_is_free():
    state = make(concurrency=2, retry_after_seconds=0.25)
    first, _second = served(state), served(state)
    assert refused(state).retry_after_seconds == 0.25
    first.finish(200)
    served(state)
    assert refused(state).refused_by == "concurrency"
    assert state.counters.max_in_flight == 2


def test_a_second_finish_frees_no_second_slot():
    state = make(concurrency=1)
    with served(state) as service:
        service.finish(200)
        service.finish(500)
    assert state.counters.in_flight == 0
    assert [record.status for record in records(state)] == [200]


def test_a_block_left_without_an_answer_frees_the_slot_as_abandoned():
    state = make(concurrency=1)
    with pytest.raises(RuntimeError), served(state):
        raise RuntimeError
    assert state.counters.in_flight == 0
    assert state.counters.abandoned == 1
    assert records(state)[0].status == 499


def test_concurrency_zero_refuses_everything():
    assert refused(make(concurrency=0)).refused_by == "concurrency"


def test_the_request_budget_says_when_it_has_room_and_keeps_its_word():
    clock = Clock()
    state = make(clock, requests_per_minute=2)
    served(state).finish(200)
    served(state).finish(200)
    refusal = refused(state)
    assert refusal.refused_by == "requests_per_minute"
    clock.now += refusal.retry_after_seconds
    served(state).finish(200)
    assert refused(state).refused_by == "requests_per_minute"


def test_a_refused_request_is_charged_to_no_budget():
    state = make(requests_per_minute=10, tokens_per_minute=100)
    served(state, tokens=60).finish(200)
    before = state.budgets_left()
    assert refused(state, tokens=60).refused_by == "tokens_per_minute"
    assert state.budgets_left() == before
    assert [(left.unit, left.remaining) for left in before] == [("requests", 9), ("tokens", 40)]


def test_a_request_larger_than_the_budget_is_told_that_it_never_fits():
    refusal = refused(make(tokens_per_minute=100), tokens=101)
    assert refusal.retry_after_seconds == math.inf
    assert "Request too large" in refusal.message


def test_the_refusal_for_concurrency_does_not_give_the_limit_away():
    state = make(concurrency=17)
    for _ in range(17):
        served(state)
    assert "17" not in refused(state).message
    assert state.budgets_left() == []


def test_the_schedule_counts_from_the_first_request_and_stands_in_the_log_as_planned():
    clock = Clock()
    steps = (
        TruthStep(at_seconds=10, changes={"concurrency": 1}),
        TruthStep(at_seconds=20, changes={"concurrency": None}),
    )
    state = make(clock, schedule=steps)
    clock.now += 100
    state.settle()
    assert state.truth.concurrency is None
    served(state)
    clock.now += 10
    assert refused(state).refused_by == "concurrency"
    clock.now += 15
    served(state)
    changes = [
        (record.source, record.at, dict(record.changes)) for record in records(state, TruthRecord)
    ]
    assert changes[0][:2] == ("start", 0.0)
    assert changes[1:] == [
        ("schedule", 110.0, {"concurrency": 1}),
        ("schedule", 120.0, {"concurrency": None}),
    ]


def test_steps_that_are_due_together_are_taken_in_order():
    clock = Clock()
    steps = tuple(TruthStep(at_seconds=n, changes={"concurrency": n}) for n in (1, 2, 3))
    state = make(clock, schedule=steps)
    served(state)
    clock.now += 60
    state.settle()
    assert state.truth.concurrency == 3
    assert len(records(state, TruthRecord)) == 4


def test_a_live_change_counts_at_once_and_a_wrong_one_changes_nothing():
    state = make(concurrency=5)
    state.change_truth({"concurrency": 0})
    refused(state)
    with pytest.raises(ConfigurationError, match="concurency"):
        state.change_truth({"concurency": 5})
    with pytest.raises(ConfigurationError, match="schedule cannot be changed"):
        state.change_truth({"schedule": []})
    assert state.truth.concurrency == 0
    assert len(records(state, TruthRecord)) == 2


def test_a_budget_can_come_change_and_go_while_it_runs():
    state = make()
    state.change_truth({"requests_per_minute": 1})
    served(state)
    refused(state)
    state.change_truth({"requests_per_minute": None})
    served(state)
    assert state.budgets_left() == []


def test_a_record_tells_what_the_request_met_on_arrival():
    clock = Clock()
    state = make(clock, concurrency=3)
    served(state)
    clock.now += 1
    caller = Caller(path="/p", arrived_at=state.elapsed_seconds(), model="m", user="u", tag="t")
    service = state.admit(replace(caller, digest="d"), tokens=7, digest="d")
    state.change_truth({"concurrency": 1})
    clock.now += 2
    service.finish(200)
    assert records(state) == [
        RequestRecord(
            arrived_at=1.0,
            finished_at=3.0,
            path="/p",
            model="m",
            status=200,
            in_flight_on_arrival=1,
            concurrency_limit=3,
            total_tokens=7,
            user="u",
            tag="t",
            digest="d",
        )
    ]


def test_every_request_counts_in_exactly_one_outcome():
    state = make()
    for status in (200, 429, 499, 500, 400, 401):
        state.note(Caller(path="/p", arrived_at=0.0), status)
    counters = state.counters
    outcomes = (counters.ok, counters.refused, counters.abandoned, counters.errors)
    assert outcomes == (1, 1, 1, 1)
    assert counters.invalid == 2


def test_latency_and_failure_depend_on_seed_content_and_its_repetitions_alone():
    truth = ProviderTruth(latency_median_seconds=1, latency_sigma=0.5, error_rate=0.5)
    contents = [f"content {n % 20}" for n in range(60)]

    def draw(order, seed=1):
        draws, seen = ServiceDraws(seed), {}
        for content in order:
            seen.setdefault(content, []).append(draws.draw(truth, content))
        return seen

    assert draw(contents) == draw(reversed(contents))
    assert draw(contents) != draw(contents, seed=2)
    assert len({latency for drawn in draw(contents).values() for latency, _ in drawn}) == 60
    assert any(len({fails for _, fails in drawn}) == 2 for drawn in draw(contents).values())


def test_another_error_rate_leaves_the_latencies_as_they_are():
    def latencies(error_rate):
        truth = ProviderTruth(latency_median_seconds=1, latency_sigma=0.5, error_rate=error_rate)
        draws = ServiceDraws(0)
        return [draws.draw(truth, str(n))[0] for n in range(20)]

    assert latencies(0.0) == latencies(0.9)


def test_latencies_have_the_median_the_sigma_and_the_floor_of_the_truth():
    truth = ProviderTruth(latency_median_seconds=2, latency_sigma=0.5)
    draws = ServiceDraws(0)
    drawn = [draws.draw(truth, str(n))[0] for n in range(4000)]
    assert statistics.median(drawn) == pytest.approx(2, rel=0.05)
    assert statistics.stdev(map(math.log, drawn)) == pytest.approx(0.5, rel=0.05)
    floored = truth.merged({"latency_floor_seconds": 1.9})
    assert min(draws.draw(floored, str(n))[0] for n in range(100)) == 1.9


@pytest.mark.parametrize(("error_rate", "failures"), [(0.0, 0), (1.0, 100)])
def test_error_rates_of_none_and_all_are_exact(error_rate, failures):
    draws = ServiceDraws(0)
    truth = ProviderTruth(error_rate=error_rate)
    assert sum(draws.draw(truth, str(n))[1] for n in range(100)) == failures


def test_the_log_keeps_the_last_records_under_their_own_index():
    log = ProviderLog(kept=3)
    for number in range(5):
        log.append(TruthRecord(at=float(number), source="live", changes={}))
    assert [index for index, _ in log.since()] == [2, 3, 4]
    assert [index for index, _ in log.since(4)] == [4]
    assert list(log.since(5)) == []
    assert all(record.at == index for index, record in log.since())


def test_the_log_file_has_every_record_also_those_that_memory_forgot(tmp_path):
    path = tmp_path / "log.jsonl"
    state = make(log=ProviderLog(path=path, kept=1), concurrency=1)
    served(state).finish(200)
    served(state)
    refused(state)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert [line["kind"] for line in lines] == ["truth", "request", "request"]
    assert lines[0]["changes"]["concurrency"] == 1
    assert [line.get("status") for line in lines] == [None, 200, 429]
    state.log.close()


def test_a_log_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="give a path that can be written"):
        ProviderLog(path=tmp_path / "no folder" / "log.jsonl")


def test_a_full_disk_ends_the_log_file_and_not_the_service(capsys):
    log = ProviderLog(path=Path("/dev/full"))
    state = make(log=log)
    served(state).finish(200)
    assert len(records(state)) == 1
    assert "mock_provider_log_ended" in capsys.readouterr().out


def test_a_refusal_rate_refuses_that_share_and_takes_no_slot():
    state = make(concurrency=1000, refusal_rate=0.2, seed=3)
    decisions = [ask(state) for _ in range(1000)]
    refusals = [d for d in decisions if isinstance(d, Refusal)]
    assert 150 < len(refusals) < 250
    assert {(r.status, r.refused_by) for r in refusals} == {(429, "chance")}
    assert state.counters.in_flight == 1000 - len(refusals)
    assert state.counters.refused == len(refusals)


def test_an_outage_refuses_everything_with_its_status_and_counts_it_as_refused():
    state = make(refusal_rate=1.0, refusal_status=503, retry_after_seconds=None)
    assert refused(state).status == 503
    state.change_truth({"refusal_rate": 0.0})
    served(state).finish(200)
    assert (state.counters.refused, state.counters.errors, state.counters.ok) == (1, 0, 1)
    assert [record.status for record in records(state)] == [503, 200]
