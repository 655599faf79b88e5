"""Design 02, *Requests*: a value that cannot be used is refused where it is made, with a remedy."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import traceback
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from forebay.contracts.checks import MAX_NAME_BYTES
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import (
    ProviderModelKey,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
)
from forebay.contracts.outcomes import RequestOutcomeKind, RequestReleaseOutcome, TokenUsage
from forebay.contracts.requests import MAX_COST, RequestAdmissionItem, RequestAdmissionLease
from forebay.contracts.settings import (
    LONGEST_SECONDS,
    MemberSettings,
    RequestAdmissionConfig,
    RequestAdmissionTuningConfig,
    Settings,
)

MODEL = ProviderModelKey(provider_name="acme", model_id="m")
RESOURCE = RequestResourceKey(provider_model=MODEL)
BEYOND_TEXT = 10**5000
"""An integer so long that Python refuses to write it down."""


def type_name(value: Any) -> str:
    """Name a case whose value cannot be written."""
    return type(value).__name__


class Odd(float):
    """A float that is written in no way a script could read, as NumPy's are."""

    def __repr__(self) -> str:
        return "Odd"


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError


def item(**fields: Any) -> RequestAdmissionItem:
    return RequestAdmissionItem(**{"resource": RESOURCE, **fields})


def lease(**fields: Any) -> RequestAdmissionLease:
    terms = {"acquired_at": 0.0, "limit_at_admission": 1, "cuts_at_admission": 0}
    ids = {"lease_id": "a", "generation": "g", "member_id": "m", "item": item()}
    return RequestAdmissionLease(**{**terms, "effective_max": 1, **ids, **fields})


def refusal(make: Callable[[], object], *named: str) -> str:
    """Return the message of the refusal, after checking that it is short and says ``named``."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    message = str(caught.value)
    assert len(message) < 700
    assert [name for name in named if name not in message] == []
    return message


# -- names

NAMED = {
    "provider name": lambda name: ProviderModelKey(provider_name=name, model_id="m"),
    "model id": lambda name: ProviderModelKey(provider_name="p", model_id=name),
    "request group": lambda name: RequestGroupSpec(key=name),
    "attempt id": lambda name: item(attempt_id=name),
    "lease id": lambda name: lease(lease_id=name),
}
BAD_NAMES = [
    "",
    "x" * 10_240,
    "\N{WATERMELON}" * (MAX_NAME_BYTES // 4) + "!",
    "\udc80",
    "a\ud800b",
    b"bytes",
    7,
    BEYOND_TEXT,
    ["list"],
    Unspeakable(),
]


@pytest.mark.parametrize("what", NAMED)
@pytest.mark.parametrize("name", BAD_NAMES, ids=type_name)
def test_a_name_that_is_no_bounded_text_is_refused(what: str, name: Any) -> None:
    refusal(lambda: NAMED[what](name), what)


@pytest.mark.parametrize("what", [what for what in NAMED if what != "request group"])
def test_a_name_must_be_given(what: str) -> None:
    refusal(lambda: NAMED[what](None), what, "name it")


@pytest.mark.parametrize("what", NAMED)
@pytest.mark.parametrize(
    "name", [" ", "\0", "{", "}", "%", "|", "\n", '"', "'", "\\", "é", "\N{WATERMELON}", "x" * 512]
)
def test_any_other_text_is_a_name(what: str, name: str) -> None:
    value = NAMED[what](name)
    assert name in [getattr(value, field.name) for field in dataclasses.fields(value)]


# -- weights, waits, costs

BAD_NUMBERS = [True, "1", b"1", Decimal(1), 1j, [1], math.nan, Unspeakable()]


@pytest.mark.parametrize(
    "weight",
    [*BAD_NUMBERS, None, 0, -1, -0.0, 0.0009, 1000.1, 1e300, math.inf, -math.inf, BEYOND_TEXT],
    ids=type_name,
)
def test_a_weight_out_of_bounds_is_refused(weight: Any) -> None:
    refusal(lambda: RequestGroupSpec(key="run 7", weight=weight), "run 7", "0.001", "1000")


@pytest.mark.parametrize("weight", [0.001, 1, 2.5, 1000, Odd(2.0)])
def test_a_weight_is_written_as_a_plain_number(weight: float) -> None:
    kept = RequestGroupSpec(weight=weight).weight
    assert float(repr(kept)) == weight
    assert type(kept) is float


@pytest.mark.parametrize("wait", [*BAD_NUMBERS, -1, -1e-9, -math.inf, -BEYOND_TEXT], ids=type_name)
def test_a_wait_below_zero_or_of_no_number_is_refused(wait: Any) -> None:
    refusal(lambda: item(queue_wait_timeout_seconds=wait), "queue_wait_timeout_seconds", "None")


@pytest.mark.parametrize("wait", [None, 0, 0.5, 1e300, math.inf])
def test_any_wait_from_zero_on_is_taken(wait: float | None) -> None:
    assert item(queue_wait_timeout_seconds=wait).queue_wait_timeout_seconds == wait


@pytest.mark.parametrize(
    "cost",
    [*BAD_NUMBERS, 1.0, -1, math.inf, MAX_COST + 1, BEYOND_TEXT],
    ids=type_name,
)
def test_a_cost_that_is_no_number_of_tokens_is_refused(cost: Any) -> None:
    refusal(lambda: item(cost=cost), "cost", "tokens")


@pytest.mark.parametrize("cost", [None, 0, 1, MAX_COST])
def test_a_number_of_tokens_is_a_cost(cost: int | None) -> None:
    assert item(cost=cost).cost == cost


# -- what an item is made of


def test_a_domain_may_be_given_by_its_text() -> None:
    resource = RequestResourceKey(provider_model=MODEL, domain="image")  # type: ignore[arg-type]
    assert resource.domain is RequestDomain.IMAGE
    assert resource == RequestResourceKey(provider_model=MODEL, domain=RequestDomain.IMAGE)


@pytest.mark.parametrize("domain", ["nope", "CHAT", "", None, b"chat", 0, ["chat"]])
def test_a_domain_that_is_none_is_refused_with_those_that_are(domain: Any) -> None:
    make = lambda: RequestResourceKey(provider_model=MODEL, domain=domain)  # noqa: E731
    refusal(make, "request domain", "chat, embedding, image, healthcheck")


@pytest.mark.parametrize("part", ["resource", "group", "event_context"])
@pytest.mark.parametrize("given", ["acme/m", MODEL, {"key": "run 7"}, 7])
def test_an_item_of_other_parts_is_refused(part: str, given: Any) -> None:
    refusal(lambda: item(**{part: given}), part, "expected Request")


@pytest.mark.parametrize("given", ["acme/m", ("acme", "m"), None])
def test_a_resource_without_a_provider_and_model_is_refused(given: Any) -> None:
    refusal(lambda: RequestResourceKey(provider_model=given), "provider_model", "ProviderModelKey")


def test_a_lease_that_could_not_be_released_is_refused() -> None:
    refusal(lambda: lease(item="a"), "item of a lease", "RequestAdmissionItem")
    refusal(lambda: lease(generation=None), "generation of a lease")


@pytest.mark.parametrize("again", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_values_survive_being_copied(again: Callable[[Any], Any]) -> None:
    outcome = RequestReleaseOutcome(kind=RequestOutcomeKind.RATE_LIMITED, usage=TokenUsage())
    for value in (item(cost=3), lease(), outcome):
        assert again(value) == value


# -- outcomes


def test_an_outcome_may_be_given_by_its_text() -> None:
    outcome = RequestReleaseOutcome(kind="rate_limited")  # type: ignore[arg-type]
    assert outcome.kind is RequestOutcomeKind.RATE_LIMITED


@pytest.mark.parametrize("kind", ["nope", "", None, 200, b"success", []])
def test_an_outcome_that_is_none_is_refused(kind: Any) -> None:
    refusal(lambda: RequestReleaseOutcome(kind=kind), "outcome kind", "provider_timeout")


@pytest.mark.parametrize("kind", [RequestOutcomeKind.MEMBER_LOST, "member_lost"])
def test_member_lost_is_written_by_the_system_alone(kind: Any) -> None:
    refusal(lambda: RequestReleaseOutcome(kind=kind), "member_lost", "local_cancelled")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("retry_after_seconds", value) for value in ("3", b"3", True, Decimal(3), [3])),
        *(("provider_status", value) for value in ("429", 429.0, [429])),
        *(("usage", value) for value in (3, {"input_tokens": 3}, (1, 2))),
        *(("diagnostics", value) for value in (None, "code", [("code", 1)], 7)),
    ],
)
def test_an_outcome_of_other_parts_is_refused_before_it_is_released(field: str, value: Any) -> None:
    fields = {"kind": RequestOutcomeKind.RATE_LIMITED, field: value}
    refusal(lambda: RequestReleaseOutcome(**fields), field)


@pytest.mark.parametrize("hint", [None, 0, -1, math.nan, math.inf, -math.inf, 1e300, 0.5])
def test_any_hint_of_a_provider_is_taken(hint: float | None) -> None:
    outcome = RequestReleaseOutcome(kind=RequestOutcomeKind.RATE_LIMITED, retry_after_seconds=hint)
    assert outcome.retry_after_seconds is hint


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
@pytest.mark.parametrize("count", [-1, -BEYOND_TEXT, 1.0, "1", True, None, math.nan], ids=type_name)
def test_usage_that_counts_no_tokens_is_refused(field: str, count: Any) -> None:
    refusal(lambda: TokenUsage(**{field: count}), field, "tokens")


# -- settings

BAD_SPANS = [-1, math.nan, math.inf, 1e300, LONGEST_SECONDS + 1, "3", True, [3], BEYOND_TEXT]
BAD_COUNTS = [0, -1, 10**9 + 1, 10**30, BEYOND_TEXT, 1.5, "3", True, None]
BAD_SETTINGS: list[tuple[type[BaseModel], str, list[Any]]] = [
    (
        RequestAdmissionTuningConfig,
        "multiplicative_decrease_factor",
        [0, 1, -0.5, 1.5, math.nan, math.inf, "0.5", True, None],
    ),
    (RequestAdmissionTuningConfig, "additive_increase_step", BAD_COUNTS),
    (RequestAdmissionTuningConfig, "successes_until_increase", BAD_COUNTS),
    (RequestAdmissionTuningConfig, "successes_until_try", BAD_COUNTS),
    (RequestAdmissionTuningConfig, "round_successes", BAD_COUNTS),
    (RequestAdmissionTuningConfig, "cooldown_seconds", [*BAD_SPANS, None]),
    (RequestAdmissionTuningConfig, "startup_ramp_seconds", [*BAD_SPANS, None]),
    (RequestAdmissionConfig, "tuning", [None, 3, "fast", {"cooldown_seconds": -1}]),
    (RequestAdmissionConfig, "initial_limits", [None, {"nope": 3}, {"chat": 0}, {"chat": 10**30}]),
    (RequestAdmissionConfig, "max_limit_clamps", [5, {None: 3}, {"chat": 1.5}, {"chat": True}]),
    (RequestAdmissionConfig, "default_queue_wait_timeout_seconds", BAD_SPANS),
    (RequestAdmissionConfig, "max_cooldown_seconds", [*BAD_SPANS, 0, 1e-9, None]),
    (RequestAdmissionConfig, "max_hold_seconds", [*BAD_SPANS, 0, 1e-9]),
    (MemberSettings, "ttl_seconds", [*BAD_SPANS, 0, 0.05, 3601]),
    (MemberSettings, "call_timeout_seconds", [*BAD_SPANS, 0, 601]),
    (MemberSettings, "recheck_seconds", [*BAD_SPANS, 0, 61]),
    (MemberSettings, "loop_stall_seconds", [*BAD_SPANS, 0]),
    (MemberSettings, "ttl", [15.0]),
]


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        pytest.param(settings, field, value, id=f"{field}-{number}")
        for settings, field, values in BAD_SETTINGS
        for number, value in enumerate(values)
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_its_name(
    settings: type[BaseModel], field: str, value: Any
) -> None:
    refusal(lambda: settings(**{field: value}), f"{settings.__name__}.{field}", "default")


def test_a_fault_within_settings_is_named_by_its_whole_path() -> None:
    make = lambda: RequestAdmissionConfig(tuning={"cooldown_seconds": -1})  # type: ignore[arg-type] # noqa: E731
    refusal(make, "RequestAdmissionConfig.tuning.cooldown_seconds is -1", "equal to 0")


def test_a_reader_of_files_gets_the_place_of_a_fault() -> None:
    class File(Settings):
        tuning: RequestAdmissionTuningConfig

    text = '{"tuning": {"multiplicative_decrease_factor": 1}}'
    with pytest.raises(ValidationError) as caught:
        File.model_validate_json(text)
    assert caught.value.errors()[0]["loc"] == ("tuning", "multiplicative_decrease_factor")


def test_every_wrong_setting_is_named_at_once() -> None:
    make = lambda: MemberSettings(ttl_seconds=0, recheck_seconds=-1)  # noqa: E731
    refusal(make, "MemberSettings.ttl_seconds is 0", "MemberSettings.recheck_seconds is -1")


def test_an_unknown_setting_is_named_and_its_value_kept_out_of_messages() -> None:
    fields: dict[str, Any] = {"url": "redis://:secret@host", "ttl_seconds": 0}
    with pytest.raises(ConfigurationError, match=r"MemberSettings\.url: extra") as caught:
        MemberSettings(**fields)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_settings_go_through_json_and_back() -> None:
    config = RequestAdmissionConfig(
        tuning=RequestAdmissionTuningConfig(cooldown_seconds=0, startup_ramp_seconds=3),
        initial_limits={RequestDomain.CHAT: 10**9},
        max_cooldown_seconds=LONGEST_SECONDS,
        max_hold_seconds=0.001,
    )
    assert RequestAdmissionConfig.model_validate_json(config.model_dump_json()) == config


NUMBERS_OF_AIMD = {
    "multiplicative_decrease_factor": 0.75,
    "additive_increase_step": 1,
    "successes_until_increase": 25,
}
NUMBERS_OF_STEADY = {"successes_until_try": 150, "round_successes": 24}


@pytest.mark.parametrize(
    ("given", "rule"),
    [({}, "steady"), ({"cooldown_seconds": 1}, "steady"), ({"rule": "aimd"}, "aimd")]
    + [({name: value}, "aimd") for name, value in NUMBERS_OF_AIMD.items()]
    + [({name: value}, "steady") for name, value in NUMBERS_OF_STEADY.items()],
)
def test_a_number_of_a_rule_selects_it(given: dict[str, Any], rule: str) -> None:
    tuning = RequestAdmissionTuningConfig(**given)
    assert tuning.rule == rule
    text = tuning.model_dump_json()
    assert RequestAdmissionTuningConfig.model_validate_json(text) == tuning
    assert RequestAdmissionTuningConfig.model_validate_json(json.dumps(given)) == tuning


@pytest.mark.parametrize(
    ("rule", "name", "value"),
    [("steady", name, value) for name, value in NUMBERS_OF_AIMD.items()]
    + [("aimd", name, value) for name, value in NUMBERS_OF_STEADY.items()],
)
def test_a_number_of_the_other_rule_is_refused_with_both_named(
    rule: str, name: str, value: float
) -> None:
    fields: dict[str, Any] = {"rule": rule, name: value}
    other = {"steady": "aimd", "aimd": "steady"}[rule]
    refusal(lambda: RequestAdmissionTuningConfig(**fields), f"{name} is", f"'{other}'", f"'{rule}'")


def test_numbers_of_both_rules_without_a_rule_are_refused() -> None:
    fields: dict[str, Any] = {"additive_increase_step": 2, "successes_until_try": 9}
    refusal(lambda: RequestAdmissionTuningConfig(**fields), "successes_until_try", "'steady'")


def test_a_rule_that_there_is_not_is_refused_by_its_name() -> None:
    fields: dict[str, Any] = {"rule": "vegas"}
    refusal(lambda: RequestAdmissionTuningConfig(**fields), "rule is 'vegas'", "steady")


def test_the_longest_span_keeps_its_microseconds_in_the_scripts_numbers() -> None:
    year_2100_us = 4_102_444_800_000_000
    assert year_2100_us + LONGEST_SECONDS * 1e6 < 2**53
