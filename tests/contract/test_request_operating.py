"""Spec 03, *One shard* and *The window*, and 07, *Command line*: what an operator may do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigurationError, CoordinatorUnavailable, SchemaMismatch
from contracts.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from contracts.requests import RequestAdmissionItem, RequestReleaseOutcome
from contracts.requests import RequestOutcomeKind as Outcome
from contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from coordinator.coordinator import Coordinator
from coordinator.embedded import EmbeddedServer
from coordinator.requests.controller import AdaptiveRequestAdmissionController
from coordinator.requests.operating import reset_cooldown, reset_window, set_override_cap
from coordinator.requests.snapshots import RequestPressureSnapshotProvider
from tests.support import wait_until
from tests.support_runs import forebay
from tests.support_scripts import (
    CHAT,
    EMBEDDING,
    Acquire,
    Leave,
    Refused,
    Register,
    Release,
    ScriptedShard,
    granted,
)
from tests.support_state import audited, read_keys, transitions

LIMITED = Outcome.RATE_LIMITED
LIMITED_FOR_A_MINUTE = RequestReleaseOutcome(kind=LIMITED, retry_after_seconds=60.0)
MODEL = ProviderModelKey(provider_name="local", model_id="mock-large")
RESOURCE = RequestResourceKey(provider_model=MODEL)


def configured(initial: int | None = None, **tuning: Any) -> RequestAdmissionConfig:
    return RequestAdmissionConfig(
        tuning=RequestAdmissionTuningConfig(**tuning),
        initial_limits={} if initial is None else {CHAT: initial},
    )


def window(shard: ScriptedShard) -> dict[str, Any]:
    seen: dict[str, Any] = audited(shard.client, shard.keys)["windows"]["chat"]
    return seen


def told(shard: ScriptedShard) -> list[tuple[str, ...]]:
    """Return kind and fields of the events so far, without their time."""
    return [event[1:] for event in transitions(shard.client, shard.keys)[0]]


def cut_to_three(shard: ScriptedShard) -> None:
    """Open a window at 4 and cut it; two leases from before stay out."""
    shard.open(8, config=configured(4, successes_until_increase=2))
    shard.batch("m", Acquire("a"), Acquire("old"), Acquire("older"), Release("a", LIMITED))


# -- a window


def test_reset_window_is_born_anew_under_the_present_settings(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    shard.batch("m", Register("alias", 8, configured(6)))
    assert shard.operate("reset_window", "chat")[2] == 6
    seen = window(shard)
    assert (seen["current_limit"], seen["effective_max"], seen["rate_limit_ceiling"]) == (6, 8, 0)
    assert (seen["success_streak"], seen["consecutive_rate_limits"]) == (0, 0)
    assert seen["in_flight"] == 2


def test_reset_window_leaves_the_cooldown(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    until_us = window(shard)["blocked_until_us"]
    shard.operate("reset_window", "chat")
    assert window(shard)["blocked_until_us"] == until_us > shard.server_us


def test_429_of_a_lease_from_before_the_reset_cools_down_and_cuts_nothing(
    shard: ScriptedShard,
) -> None:
    shard.open(8, config=configured(4))
    shard.batch("m", Acquire("old"))
    shard.operate("reset_window", "chat")
    shard.batch("m", Release("old", LIMITED, 9.0))
    seen = window(shard)
    assert (seen["current_limit"], seen["rate_limit_ceiling"]) == (4, 0)
    assert seen["blocked_until_us"] == shard.server_us + 9_000_000


def test_429_of_a_lease_since_the_reset_cuts_the_new_window(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    shard.operate("reset_cooldown", "chat")
    shard.operate("reset_window", "chat")
    shard.batch("m", Acquire("new"), Release("new", LIMITED), Release("old", LIMITED))
    assert (window(shard)["current_limit"], window(shard)["rate_limit_ceiling"]) == (3, 4)


def test_reset_window_ramps_again_and_only_a_cut_ends_the_ramp(shard: ScriptedShard) -> None:
    shard.open(9, config=configured(startup_ramp_seconds=8.0, cooldown_seconds=0.0))
    shard.batch("m", Acquire("first"))
    shard.advance(8.0)
    shard.batch("m", Acquire("old"))
    assert shard.operate("reset_window", "chat")[2] == 1
    shard.heartbeat("m", 60.0)
    shard.advance(4.0)
    shard.batch("m", Release("first"), Release("old", LIMITED))
    shard.advance(2.0)
    assert shard.ask("m", Acquire("new"))[3] == 7
    shard.batch("m", Release("new", LIMITED))
    shard.advance(2.0)
    assert shard.ask("m", Acquire("newer"))[3] == 5


def test_reset_window_grants_what_became_possible(shard: ScriptedShard) -> None:
    shard.open(4, "m", "n", config=configured(2))
    shard.batch("m", Acquire("a"), Release("a", LIMITED, 1.0))
    shard.advance(1.0)
    shard.batch("n", *map(Acquire, "bcd"))
    assert len(audited(shard.client, shard.keys)["waiters"]) == 2
    shard.operate("reset_window", "chat")
    assert granted(shard.pushed["n"]) == ["c"]


def test_reset_of_a_smaller_window_takes_no_lease_back(shard: ScriptedShard) -> None:
    shard.open(4)
    shard.batch("m", *map(Acquire, "abcd"), Register("alias", 4, configured(1)))
    assert shard.operate("reset_window", "chat")[2] == 1
    assert (window(shard)["current_limit"], window(shard)["in_flight"]) == (1, 4)


def test_reset_of_a_window_that_nobody_used_makes_none(shard: ScriptedShard) -> None:
    shard.open(4)
    assert shard.operate("reset_window", "image")[2] == 0
    assert "domain_image" not in shard.stored_keys()
    assert [event for event in told(shard) if "reset" in event[0]] == []


def test_reset_while_nobody_is_registered_keeps_the_last_known_caps(shard: ScriptedShard) -> None:
    shard.open(8, "m", "n")
    shard.batch("m", Acquire("a"), Release("a", LIMITED), Leave())
    assert shard.operate("reset_window", "chat")[2] == 8
    assert shard.ask("n", Register("alias", 5)) == ["registered", 5]
    assert (window(shard)["current_limit"], window(shard)["effective_max"]) == (5, 5)


def test_reset_window_is_told(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    shard.operate("reset_window", "chat")
    shard.operate("reset_window", "chat")
    assert told(shard)[-3:] == [
        ("request_window_reset", "chat", "3", "4"),
        ("request_limit_increased", "chat", "3", "4", "reset"),
        ("request_window_reset", "chat", "4", "4"),
    ]


# -- a cooldown


def test_reset_cooldown_opens_now_and_grants_its_waiters(shard: ScriptedShard) -> None:
    shard.open(2, "m", "n")
    shard.batch("m", Acquire("a"), Release("a", LIMITED, 60.0))
    shard.batch("n", *map(Acquire, "bcd"))
    shard.advance(1.5)
    assert shard.operate("reset_cooldown", "chat")[2] == 58_500_000
    assert granted(shard.pushed["n"]) == ["b"]
    assert told(shard)[-1] == ("request_cooldown_reset", "chat", "58500000")
    seen = window(shard)
    assert (seen["blocked_until_us"], seen["current_limit"]) == (shard.server_us, 1)
    assert seen["consecutive_rate_limits"] == 1


def test_reset_cooldown_twice_is_as_once(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    shard.operate("reset_cooldown", "chat")
    before, said = read_keys(shard.client, shard.keys), told(shard)
    shard.advance(1.0)
    assert shard.operate("reset_cooldown", "chat")[2] == 0
    after = read_keys(shard.client, shard.keys)
    assert (after | {"meta": {}}, told(shard)) == (before | {"meta": {}}, said)


def test_cooldown_of_another_domain_goes_on(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    assert shard.operate("reset_cooldown", "embedding")[2] == 0
    assert window(shard)["blocked_until_us"] > shard.server_us


def test_429_after_a_reset_cools_down_again(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    shard.operate("reset_cooldown", "chat")
    shard.batch("m", Release("old", LIMITED, 7.0))
    assert window(shard)["blocked_until_us"] == shard.server_us + 7_000_000


# -- the override


def test_lowered_override_lowers_the_windows_at_once_and_takes_no_lease_back(
    shard: ScriptedShard,
) -> None:
    shard.open(8)
    shard.batch("m", *map(Acquire, "abcd"), Acquire("e", EMBEDDING))
    assert shard.operate("override_cap", "3")[2] == 3
    state = audited(shard.client, shard.keys)
    assert [state["windows"][d]["current_limit"] for d in ("chat", "embedding")] == [3, 3]
    assert (state["static_cap"], state["in_flight"]) == (3, 5)
    assert ("request_effective_cap_changed", "8", "3") in told(shard)
    assert ("request_limit_decreased", "chat", "8", "3", "cap") in told(shard)


def test_raised_override_lifts_an_uncut_window_at_once_and_grants(shard: ScriptedShard) -> None:
    shard.open(8)
    shard.operate("override_cap", "1")
    shard.batch("m", *map(Acquire, "abcd"))
    assert shard.operate("override_cap", "3")[2] == 3
    assert granted(shard.pushed["m"]) == ["b", "c"]
    assert shard.operate("override_cap", "")[2] == 8
    assert window(shard)["current_limit"] == 8


def test_raised_override_leaves_a_cut_window_to_recover(shard: ScriptedShard) -> None:
    shard.open(8)
    shard.operate("override_cap", "4")
    shard.batch("m", Acquire("a"), Release("a", LIMITED))
    shard.operate("override_cap", "0")
    assert (window(shard)["current_limit"], window(shard)["effective_max"]) == (3, 8)


def test_override_above_the_alias_caps_changes_nothing(shard: ScriptedShard) -> None:
    shard.open(4)
    before = told(shard)
    assert shard.operate("override_cap", "9")[2] == 4
    assert told(shard) == before
    assert shard.ask("m", Register("alias", 20)) == ["registered", 9]


def test_override_before_anybody_registers_counts_as_soon_as_one_does(
    shard: ScriptedShard,
) -> None:
    shard.join("m")
    assert shard.operate("override_cap", "2")[2] == 0
    assert shard.ask("m", Register("alias", 8)) == ["registered", 2]
    assert shard.endless_keys() == set()


# -- all of them


OPERATIONS = [
    ("reset_window", "chat"),
    ("reset_cooldown", "chat"),
    ("override_cap", "2"),
    ("settle", ""),
]


@pytest.mark.parametrize(("operation", "subject"), OPERATIONS)
def test_operation_on_a_shard_that_nobody_used_is_refused_and_makes_no_key(
    shard: ScriptedShard, operation: str, subject: str
) -> None:
    with pytest.raises(Refused) as refusal:
        shard.operate(operation, subject)
    assert (refusal.value.code, shard.stored_keys()) == ("NOSHARD", set())


@pytest.mark.parametrize(("operation", "subject"), OPERATIONS)
def test_operation_first_does_what_time_did(
    shard: ScriptedShard, operation: str, subject: str
) -> None:
    shard.open(1, "m", "n")
    shard.batch("m", Acquire("a"))
    shard.batch("n", Register("alias", 1), Acquire("b"))
    shard.heartbeat("n", 60.0)
    shard.advance(15.0)
    shard.operate(operation, subject)
    assert granted(shard.pushed["n"]) == ["b"]
    assert list(audited(shard.client, shard.keys)["leases"]) == ["b"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("steal", ""),
        ("reset_window", "video"),
        ("reset_cooldown", ""),
        ("override_cap", "-1"),
        ("override_cap", "1e9"),
        ("override_cap", "many"),
        ("override_cap", "12345678901"),
        ("settle", "chat"),
    ],
)
def test_wrong_word_changes_nothing(shard: ScriptedShard, wrong: tuple[str, str]) -> None:
    cut_to_three(shard)
    before = read_keys(shard.client, shard.keys)
    shard.advance(99.0)
    with pytest.raises(Refused, match="BADCALL"):
        shard.operate(*wrong)
    assert read_keys(shard.client, shard.keys) == before


def test_operator_of_another_schema_changes_nothing(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    before = read_keys(shard.client, shard.keys)
    with pytest.raises(Refused, match="SCHEMA"):
        shard.operate("reset_window", "chat", schema="0")
    assert read_keys(shard.client, shard.keys) == before


def test_operation_that_grants_more_than_a_call_may_says_that_it_goes_on(
    shard: ScriptedShard,
) -> None:
    shard.open(150)
    shard.operate("override_cap", "1")
    names = [f"w{i:03}" for i in range(150)]
    shard.batch("m", *map(Acquire, names))
    counts = []
    now_us, wake_us, _ = shard.operate("override_cap", "")
    while 0 < wake_us <= now_us:
        counts.append(len(granted(shard.pushed["m"])))
        now_us, wake_us, _ = shard.operate("settle")
    assert counts == [64, 64]
    assert len(audited(shard.client, shard.keys)["leases"]) == 150


# -- from Python and from the command line


@pytest.fixture
async def coordinator(redis_url: str) -> AsyncIterator[Coordinator]:
    async with await Coordinator.open(redis_url) as coordinator:
        yield coordinator


@pytest.fixture
async def controller(coordinator: Coordinator) -> AsyncIterator[AdaptiveRequestAdmissionController]:
    """A provider/model with a cap of 4 whose window was cut to 3, cooling down for a minute."""
    controller = AdaptiveRequestAdmissionController(coordinator)
    await controller.register(MODEL, "main", 4)
    lease = await controller.acquire(RequestAdmissionItem(resource=RESOURCE))
    await controller.release(lease, LIMITED_FOR_A_MINUTE)
    yield controller
    await controller.close()


async def test_denial_says_when_asking_again_may_help(
    controller: AdaptiveRequestAdmissionController,
) -> None:
    denied = await controller.try_acquire(RequestAdmissionItem(resource=RESOURCE))
    assert getattr(denied, "reason", "granted") == "cooldown"
    assert 0 < getattr(denied, "retry_after_seconds", 0) <= 60


async def test_operator_needs_no_membership(
    controller: AdaptiveRequestAdmissionController, coordinator: Coordinator
) -> None:
    seen = RequestPressureSnapshotProvider(coordinator)
    assert await reset_window(coordinator, RESOURCE) == 4
    assert 0 < await reset_cooldown(coordinator, RESOURCE) <= 60
    assert await reset_cooldown(coordinator, RESOURCE) == 0.0
    assert await set_override_cap(coordinator, MODEL, 2) == 2
    shard = await seen.global_snapshot(MODEL)
    chat = shard.domains[RequestDomain.CHAT]
    assert (shard.override_cap, shard.static_cap, shard.member_count) == (2, 2, 1)
    assert (chat.current_limit, chat.blocked_until, chat.rate_limit_ceiling) == (2, None, None)
    assert await set_override_cap(coordinator, MODEL, None) == 4
    assert (await seen.audit(MODEL)).ok
    await controller.close()
    assert await set_override_cap(coordinator, MODEL, 2) == 0
    assert (await seen.audit(MODEL)).ok


async def test_all_that_an_operation_makes_possible_is_granted(coordinator: Coordinator) -> None:
    controller = AdaptiveRequestAdmissionController(coordinator)
    await controller.register(MODEL, "main", 150)
    await set_override_cap(coordinator, MODEL, 1)
    shard = RequestPressureSnapshotProvider(coordinator)
    items = [RequestAdmissionItem(resource=RESOURCE) for _ in range(150)]
    asked = [controller.acquire(item) for item in items]
    waiting = asyncio.gather(*asked)

    async def all_wait() -> bool:
        return (await shard.global_snapshot(MODEL)).waiters == 149

    await wait_until(all_wait)
    await set_override_cap(coordinator, MODEL, None)
    assert (await shard.global_snapshot(MODEL)).waiters == 0
    assert len(await waiting) == 150
    await controller.close()


@pytest.mark.parametrize("cap", [0, -1, 10**9 + 1, 1.5, "3"])
async def test_wrong_cap_is_a_typed_error(
    controller: AdaptiveRequestAdmissionController, coordinator: Coordinator, cap: Any
) -> None:
    with pytest.raises(ConfigurationError, match="expected a whole number from 1"):
        await set_override_cap(coordinator, MODEL, cap)


async def test_unknown_provider_model_is_a_typed_error_and_leaves_no_key(
    coordinator: Coordinator,
) -> None:
    with pytest.raises(ConfigurationError, match="local/mock-large was never used"):
        await reset_window(coordinator, RESOURCE)
    assert await coordinator.client.keys("*") == []


async def test_shard_of_another_version_is_a_typed_error(
    controller: AdaptiveRequestAdmissionController, coordinator: Coordinator
) -> None:
    meta = "fb:{rq:local/mock-large}:meta"
    await coordinator.client.hset(meta, "schema", "0")
    with pytest.raises(SchemaMismatch):
        await reset_window(coordinator, RESOURCE)


async def test_server_that_went_away_is_a_typed_error(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as own:
        async with await Coordinator.open(own.url) as coordinator:
            own.kill()
            with pytest.raises(CoordinatorUnavailable):
                await reset_cooldown(coordinator, RESOURCE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], ["window now 4", "cooldown ended "]),
        (["--window"], ["window now 4"]),
        (["--cooldown"], ["cooldown ended "]),
        (["--domain", "image"], ["window never used, nothing to reset", "cooldown none"]),
    ],
)
async def test_reset_command_says_what_it_did(
    controller: AdaptiveRequestAdmissionController,
    redis_url: str,
    tmp_path: Path,
    options: list[str],
    said: list[str],
) -> None:
    words = ("reset", "local", "mock-large", "--url", redis_url, *options)
    done = await asyncio.to_thread(forebay, *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for line, part in zip(done.stdout.splitlines(), said, strict=True):
        assert part in line


async def test_reset_of_what_nobody_used_is_one_sentence(redis_url: str, tmp_path: Path) -> None:
    done = forebay("reset", "local", "typo", "--url", redis_url, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: local/typo was never used on the server at ")
    assert len(done.stderr.splitlines()) == 1
