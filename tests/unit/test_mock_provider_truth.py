from __future__ import annotations

import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.mock_provider.budget import TokenBucket
from forebay.mock_provider.responses import format_duration
from forebay.mock_provider.truth import ProviderTruth, TruthStep, parse_truth, read_truth_file


def test_a_toml_file_gives_limits_and_a_schedule(tmp_path):
    path = tmp_path / "truth.toml"
    path.write_text(
        """
        concurrency = 8
        tokens_per_minute = "none"
        [[schedule]]
        at_seconds = 5
        concurrency = 2
        error_rate = 0.5
        [[schedule]]
        at_seconds = 9
        concurrency = "none"
        """
    )
    truth = parse_truth(read_truth_file(path))
    assert truth.concurrency == 8
    assert truth.tokens_per_minute is None
    assert [step.at_seconds for step in truth.schedule] == [5, 9]
    assert truth.merged(truth.schedule[0].changes).error_rate == 0.5
    assert truth.merged(truth.schedule[1].changes).concurrency is None


def test_a_truth_survives_json_with_its_schedule():
    truth = ProviderTruth(schedule=(TruthStep(at_seconds=1, changes={"concurrency": 3}),))
    text = truth.model_dump_json()
    assert '{"at_seconds":1.0,"concurrency":3}' in text
    assert ProviderTruth.model_validate_json(text) == truth


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"concurency": 3}, "concurency: unknown field; the fields are concurrency, "),
        ({"concurrency": -1}, "concurrency: Input should be greater than or equal to 0"),
        ({"requests_per_minute": 0}, "requests_per_minute: "),
        ({"error_rate": 1.5}, "error_rate: "),
        ({"latency_median_seconds": float("nan")}, "latency_median_seconds: "),
        ({"retry_after_seconds": "soon"}, "retry_after_seconds: "),
        ({"schedule": [{"concurrency": 1}]}, "a step needs at_seconds"),
        ({"schedule": [{"at_seconds": 1}]}, "names at least one field"),
        ({"schedule": [{"at_seconds": 1, "concurency": 1}]}, "schedule step 1: concurency"),
        ({"schedule": [{"at_seconds": 1, "error_rate": 7}]}, "schedule step 1: error_rate"),
        ({"schedule": [{"at_seconds": 1, "schedule": []}]}, "schedule step 1: schedule cannot"),
        (
            {
                "schedule": [
                    {"at_seconds": 2, "concurrency": 1},
                    {"at_seconds": 1, "concurrency": 2},
                ]
            },
            "schedule step 2: at_seconds must not be before",
        ),
    ],
)
def test_a_wrong_field_is_named_before_anything_starts(fields, said):
    with pytest.raises(ConfigurationError) as caught:
        parse_truth(fields, origin="here")
    assert str(caught.value).startswith("here: ")
    assert said in str(caught.value)


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("a b")
    with pytest.raises(ConfigurationError, match=r"x\.toml: expected TOML"):
        read_truth_file(path)
    with pytest.raises(ConfigurationError, match=r"gone\.toml: No such file"):
        read_truth_file(tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (10, "10s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (3725.5, "1h2m5.5s"),
        (0.9999, "1s"),
        (59.9999, "1m0s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds, text):
    assert format_duration(seconds) == text


def test_a_bucket_refills_evenly_and_never_above_its_size():
    bucket = TokenBucket.full(60, now=0)
    bucket.take(60)
    assert bucket.seconds_until(1) == pytest.approx(1)
    for tenth in range(1, 11):
        bucket.settle(tenth / 10)
    assert bucket.seconds_until(1) == 0
    left = bucket.left("requests")
    assert (left.limit, left.remaining) == (60, 1)
    assert left.full_in_seconds == pytest.approx(59)
    bucket.settle(1000)
    left = bucket.left("requests")
    assert (left.remaining, left.full_in_seconds) == (60, 0)


def test_a_clock_that_steps_back_refills_nothing_twice():
    bucket = TokenBucket.full(60, now=0)
    bucket.take(60)
    bucket.settle(10)
    bucket.settle(5)
    bucket.settle(10)
    assert bucket.level == pytest.approx(10)


def test_a_resized_bucket_forgets_nothing_that_was_spent():
    bucket = TokenBucket.full(100, now=0)
    bucket.take(90)
    bucket.resize(1000, now=0)
    assert bucket.level == pytest.approx(10)
    bucket.resize(5, now=0)
    assert bucket.level == 5
    assert bucket.seconds_until(6) == float("inf")
