"""No name, number or part from outside does harm.

Rules: design 06, *Trust*; design 03, *Errors people see*.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
import redis

import forebay
from forebay.contracts.settings import LONGEST_SECONDS
from forebay.coordinator.keys import request_shard
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.support import wait_until
from tests.support_scripts import AIMD, Acquire, Register, Release, ScriptedShard
from tests.support_state import audited

NASTY: Final = [
    *("{", "}", "}{", "{}", "{a}b", "fb:{rq:a/b}:meta", "/", "//", "a/b", "..", ".", "-", "~", "*"),
    *(" ", " a", "a ", "a b", "a\nb", "\r\n", "*1\r\n$8\r\nFLUSHALL\r\n", "\t", "\x7f", "\x1b[31m"),
    *("\0", "\0\0", "a\0lease\0b", "a\0waiter\0b", "|", "||", "m|chat|g", ",", ",,,", ":"),
    *("%", "%%", "%2", "%20", "%7B", "%257B", "%s", "+", "a+b", "&", "?", "#", "[a-z]", "$(id)"),
    *('"', "'", "\\", '\\"', '"]]', "]]", "--", "nil", "null", "NaN", "0", "-1", "1e400"),
    *("é", "e\u0301", "\u202e", "\ufeff", "\u2028", "\N{WATERMELON}", "日本語", "ß", "SS"),
    *("x" * 512, "%" * 512, "\N{WATERMELON}" * 128),
]
HOLDER: Final = forebay.MemberSettings(ttl_seconds=3600.0)
MODEL: Final = forebay.ProviderModelKey(provider_name="acme", model_id="m")
RESOURCE: Final = forebay.RequestResourceKey(provider_model=MODEL)

Controller = forebay.AdaptiveRequestAdmissionController
Pressure = RequestPressureSnapshotProvider


@pytest.fixture
async def requests(redis_url: str) -> AsyncIterator[Controller]:
    async with forebay.connect(redis_url, HOLDER) as controller:
        yield controller


@pytest.fixture
async def pressure(redis_url: str) -> AsyncIterator[Pressure]:
    async with await ServerConnection.open(redis_url) as connection:
        yield Pressure(connection)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with open_sync(parse_url(redis_url)) as client:
        yield client


def named(name: str, attempt_id: str) -> forebay.RequestAdmissionItem:
    """Return an item whose every name is ``name``, save that the ids of two attempts differ."""
    model = forebay.ProviderModelKey(provider_name=name, model_id=name)
    return forebay.RequestAdmissionItem(
        resource=forebay.RequestResourceKey(provider_model=model),
        group=forebay.RequestGroupSpec(key=name),
        attempt_id=attempt_id,
    )


async def live_under(requests: Controller, pressure: Pressure, name: str) -> None:
    """Register, acquire, wait, release, and look, with one name for everything."""
    first, second = named(name, name), named(name, f"{name[:100]}2")
    model = first.resource.provider_model
    assert await requests.register(model, name, 1) == 1
    held = await requests.acquire(first)
    waits = asyncio.ensure_future(requests.acquire(second))
    assert held.lease_id == name

    async def is_waiting() -> bool:
        return (await pressure.global_snapshot(model)).waiters == 1

    await wait_until(is_waiting)
    shard = await pressure.global_snapshot(model)
    chat = shard.domains[forebay.RequestDomain.CHAT]
    assert (shard.aliases, shard.raw_caps, shard.provider_model) == ((name,), {name: 1}, model)
    assert [(row.group, row.waiting) for row in chat.waiting_groups] == [(name, 1)]
    assert (await pressure.audit(model)).differences == ()
    assert (await requests.release(held, forebay.SUCCESS)).released
    next_held = await waits
    assert next_held.item is second
    assert (await requests.release(next_held, forebay.SUCCESS)).released
    assert (await requests.release(held, forebay.SUCCESS)).reason == "duplicate"
    assert (await pressure.global_snapshot(model)).aggregate_in_flight == 0
    assert (await pressure.audit(model)).differences == ()


# -- names


async def test_any_name_lives_through_the_server_unchanged_and_apart(
    requests: Controller, pressure: Pressure, client: redis.Redis
) -> None:
    for start in range(0, len(NASTY), 8):
        part = NASTY[start : start + 8]
        await asyncio.gather(*(live_under(requests, pressure, name) for name in part))

    models = {forebay.ProviderModelKey(provider_name=name, model_id=name) for name in NASTY}
    assert len(models) == len(NASTY)
    assert set(await pressure.global_snapshots()) == models
    for key in client.scan_iter("*"):
        assert key.startswith(b"fb:")
        assert key.isascii()
        assert (key.count(b"{"), key.count(b"}")) in {(1, 1), (0, 0)}
        assert key.decode().isprintable()


async def test_nasty_names_of_one_shard_stay_apart(
    requests: Controller, pressure: Pressure
) -> None:
    await requests.register(MODEL, "main", len(NASTY), AIMD)
    leases = [
        await requests.acquire(dataclasses.replace(named(name, name), resource=RESOURCE))
        for name in NASTY
    ]
    waits = [
        asyncio.ensure_future(
            requests.acquire(
                dataclasses.replace(named(name, f"{name[:100]} waits"), resource=RESOURCE)
            )
        )
        for name in NASTY
    ]

    async def all_wait() -> bool:
        return (await pressure.snapshot(RESOURCE)).waiters == len(NASTY)

    await wait_until(all_wait)
    shard = await pressure.global_snapshot(MODEL)
    chat = shard.domains[forebay.RequestDomain.CHAT]
    assert {lease.lease_id for lease in leases} == set(NASTY)
    assert {row.group for row in chat.waiting_groups} == set(NASTY)
    assert {row.waiting for row in chat.waiting_groups} == {1}
    assert shard.aggregate_in_flight == len(NASTY)

    for lease in leases:
        assert (await requests.release(lease, forebay.SUCCESS)).released
    for lease in await asyncio.gather(*waits):
        assert (await requests.release(lease, forebay.SUCCESS)).released
    assert (await pressure.global_snapshot(MODEL)).aggregate_in_flight == 0
    assert (await pressure.audit(MODEL)).differences == ()


def test_two_providers_and_models_share_no_key_and_no_channel() -> None:
    models = [
        forebay.ProviderModelKey(provider_name=provider, model_id=model)
        for provider in NASTY
        for model in NASTY
    ]
    shards = [request_shard(model) for model in models]
    names = [key for shard in shards for key in (*shard.all, shard.wake_channel("m"))]
    assert len(set(names)) == len(names)


async def test_a_lost_lease_is_told_under_its_own_name_alone(
    redis_url: str, client: redis.Redis
) -> None:
    told: list[str] = []
    pair = ["a b", "a%20b"]  # the second looks as the first does in the server's keys
    async with await ServerConnection.open(redis_url, HOLDER) as connection:
        requests = Controller(
            connection, on_lease_lost=lambda lease, _why: told.append(lease.lease_id)
        )
        hold = forebay.RequestAdmissionConfig(max_hold_seconds=3600.0)
        await requests.register(MODEL, "main", 2, hold)
        for name in pair:
            await requests.acquire(dataclasses.replace(named(name, name), resource=RESOURCE))
        # Its time is over; the next operation finds out.
        client.zadd(request_shard(MODEL)["holds"], {"a%20b": 1})
        await requests.try_acquire(forebay.RequestAdmissionItem(resource=RESOURCE))
        await wait_until(lambda: told != [])
        assert told == ["a b"]
        await requests.close()


# -- numbers


@pytest.mark.parametrize(
    "cap", [0, -1, 10**9 + 1, 10**400, True, 1.0, math.nan, "1", b"1", None, [1]], ids=repr
)
async def test_a_cap_out_of_bounds_is_refused_and_leaves_nothing(
    requests: Controller, client: redis.Redis, cap: Any
) -> None:
    with pytest.raises(forebay.ConfigurationError, match="max_parallel_requests of acme/m"):
        await requests.register(MODEL, "main", cap)
    assert client.keys() == []


@pytest.mark.parametrize("alias", ["", "x" * 10_240, "\udc80", None, 7, b"main", ["main"]])
async def test_an_alias_that_is_no_name_is_refused_and_leaves_nothing(
    requests: Controller, client: redis.Redis, alias: Any
) -> None:
    with pytest.raises(forebay.ConfigurationError, match="alias"):
        await requests.register(MODEL, alias, 1)
    assert client.keys() == []


@pytest.mark.parametrize("cap", [1, 10**9])
async def test_the_smallest_and_the_largest_cap_are_kept_exactly(
    requests: Controller, pressure: Pressure, cap: int
) -> None:
    assert await requests.register(MODEL, "main", cap, AIMD) == cap
    lease = await requests.acquire(forebay.RequestAdmissionItem(resource=RESOURCE))
    assert (lease.limit_at_admission, lease.effective_max) == (cap, cap)
    limited = forebay.RequestReleaseOutcome(kind=forebay.RequestOutcomeKind.RATE_LIMITED)
    assert (await requests.release(lease, limited)).released
    seen = await pressure.snapshot(RESOURCE)
    assert (seen.current_limit, seen.rate_limit_ceiling) == (max(1, cap * 3 // 4), cap)
    assert (await pressure.audit(MODEL)).differences == ()


@pytest.mark.parametrize("wait", [1e300, math.inf, LONGEST_SECONDS])
async def test_an_absurd_wait_ends_with_its_lease(
    requests: Controller, pressure: Pressure, wait: float
) -> None:
    await requests.register(MODEL, "main", 1)
    held = await requests.acquire(forebay.RequestAdmissionItem(resource=RESOURCE))
    patient = forebay.RequestAdmissionItem(resource=RESOURCE, queue_wait_timeout_seconds=wait)
    waits = asyncio.ensure_future(requests.acquire(patient))

    async def is_waiting() -> bool:
        return (await pressure.snapshot(RESOURCE)).waiters == 1

    await wait_until(is_waiting)
    assert (await pressure.audit(MODEL)).differences == ()
    await requests.release(held, forebay.SUCCESS)
    assert (await waits).item is patient


def test_weights_at_their_bounds_and_as_foreign_floats_share_in_proportion(
    shard: ScriptedShard,
) -> None:
    class Odd(float):
        def __repr__(self) -> str:
            return "np.float64(1000.0)"

    shard.open(1)
    shard.batch("m", Acquire("held"))
    for number in range(2):
        shard.batch("m", Acquire(f"light{number}", group="light", weight=0.001))
    for number in range(3):
        shard.batch("m", Acquire(f"heavy{number}", group="heavy", weight=Odd(1000.0)))
    groups = audited(shard.client, shard.keys)["groups"]
    assert (groups["light"][0], groups["heavy"][0]) == (0.001, 1000.0)
    order = ["held"]
    for _ in range(5):
        reply = shard.batch("m", Release(order[-1]))
        order.append(reply.notices[0][1])
    assert order == ["held", "light0", "heavy0", "heavy1", "heavy2", "light1"]


def longest() -> forebay.RequestAdmissionConfig:
    """Return settings that are as large as they may be."""
    tuning = forebay.RequestAdmissionTuningConfig(
        multiplicative_decrease_factor=math.nextafter(1.0, 0.0),
        additive_increase_step=10**9,
        successes_until_increase=10**9,
        cooldown_seconds=LONGEST_SECONDS,
        startup_ramp_seconds=LONGEST_SECONDS,
    )
    return forebay.RequestAdmissionConfig(
        tuning=tuning,
        initial_limits={forebay.RequestDomain.CHAT: 10**9},
        max_limit_clamps={forebay.RequestDomain.CHAT: 10**9},
        max_cooldown_seconds=LONGEST_SECONDS,
        max_hold_seconds=LONGEST_SECONDS,
    )


def test_the_largest_settings_lose_no_microsecond(shard: ScriptedShard) -> None:
    shard.open(10**9, config=longest())
    shard.batch("m", Acquire("a"), Release("a", forebay.RequestOutcomeKind.RATE_LIMITED))
    state = audited(shard.client, shard.keys)
    until_us = shard.server_us + 366 * 24 * 3600 * 1_000_000
    assert state["windows"]["chat"]["blocked_until_us"] == until_us

    shard.batch("m", Acquire("waits"))
    for margin_us in (-1, 0):
        shard.set_clock(until_us + margin_us)
        shard.join("n", ttl_seconds=3600.0)
        shard.batch("n", Register("other", 10**9, longest()))
        shard.batch("n", Acquire(f"at {margin_us}"))
        leases = audited(shard.client, shard.keys)["leases"]
        assert len(leases) == margin_us + 1


def test_a_tiny_factor_leaves_a_window_of_one(shard: ScriptedShard) -> None:
    tuning = forebay.RequestAdmissionTuningConfig(multiplicative_decrease_factor=5e-324)
    shard.open(10**9, config=forebay.RequestAdmissionConfig(tuning=tuning))
    shard.batch("m", Acquire("a"), Release("a", forebay.RequestOutcomeKind.RATE_LIMITED))
    assert audited(shard.client, shard.keys)["windows"]["chat"]["current_limit"] == 1


def test_the_shortest_hold_is_not_off(shard: ScriptedShard) -> None:
    shard.open(1, config=forebay.RequestAdmissionConfig(max_hold_seconds=0.001))
    shard.batch("m", Acquire("a"))
    shard.advance(0.001)
    assert shard.batch("m").notices == [["lost", "a", "max_hold"]]


def test_names_sorted_between_others_do_not_reach_into_them(shard: ScriptedShard) -> None:
    """The end of one member, and the count of one group, stop at the next name."""
    members = ["m", "m0", "m1", "m-1"]
    shard.open(8, *members)
    for member in members:
        shard.batch(member, Acquire(f"{member} holds", group=member))
    shard.beat_all(*members[1:], ttl_seconds=60.0)
    shard.advance(15.0)
    shard.batch("m0")
    state = audited(shard.client, shard.keys)
    assert {lease[0] for lease in state["leases"].values()} == set(members[1:])
