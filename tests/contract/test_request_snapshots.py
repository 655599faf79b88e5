"""Snapshots of a request shard: the script on both servers, and its values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from forebay.commands.snapshot import snapshot_lines
from forebay.contracts.errors import CoordinatorUnavailable
from forebay.contracts.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.contracts.requests import RequestAdmissionItem
from forebay.contracts.settings import RequestAdmissionTuningConfig
from forebay.contracts.snapshots import GlobalSnapshot
from forebay.coordinator.keys import SHARDS_KEY
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.shard_under_clock import (
    LARGE,
    SECOND_US,
    SERVERS,
    START_US,
    Shard,
    make_busy,
    open_shard,
)
from tests.support_records import read_window


@pytest.fixture(params=SERVERS)
def shard(request: pytest.FixtureRequest) -> Iterator[Shard]:
    yield from open_shard(request)


@pytest.fixture
def busy(shard: Shard) -> Shard:
    return make_busy(shard)


def dump(client: redis.Redis) -> dict[bytes, tuple[bytes | None, int]]:
    """Every key with its content and the instant of its end."""
    return {key: (client.dump(key), client.expiretime(key)) for key in client.scan_iter("*")}


def test_snapshot_shows_every_lease_waiter_member_and_cap(busy: Shard) -> None:
    seen = busy.snapshot()
    chat, embedding = seen.domains[RequestDomain.CHAT], seen.domains[RequestDomain.EMBEDDING]

    assert (seen.static_cap, seen.raw_caps) == (4, {"fast": 4, "slow one": 6})
    assert seen.aliases == ("fast", "slow one")
    assert (seen.aggregate_in_flight, seen.aggregate_active_lease_count) == (4, 4)
    assert (chat.in_flight_count, chat.waiters, chat.current_limit) == (3, 3, 4)
    assert (embedding.in_flight_count, embedding.waiters) == (1, 0)
    assert [(g.group, g.weight, g.waiting) for g in chat.waiting_groups] == [
        ("run 7", 2.0, 2),
        ("other", 1.0, 1),
    ]
    assert [(m.member_id, m.lease_count, m.waiters) for m in seen.members] == [
        ("m1", 3, 1),
        ("m2", 1, 2),
    ]
    assert seen.leak_diagnostics == {}


def test_snapshot_survives_the_round_trip_to_json(busy: Shard) -> None:
    seen = busy.snapshot()

    assert GlobalSnapshot.model_validate_json(seen.model_dump_json()) == seen


def test_times_keep_their_microseconds(busy: Shard) -> None:
    busy.register("m1", 4, "fast", tuning=RequestAdmissionTuningConfig(rule="aimd"))
    busy.pass_time(0.000_001)
    busy.batch("m1", ("release", "a1", "rate_limited", 30 * SECOND_US, "born", "", ""))
    busy.pass_time(1)
    seen = busy.snapshot()
    chat = seen.domains[RequestDomain.CHAT]

    assert seen.captured_at == (START_US + 1 + SECOND_US) / 1e6
    assert chat.blocked_until == (START_US + 1 + 30 * SECOND_US) / 1e6
    assert chat.cooldown_remaining_seconds == 29.0
    assert (chat.current_limit, chat.rate_limit_ceiling, chat.cuts) == (3, 4, 1)
    assert chat.last_outcome is RequestOutcomeKind.RATE_LIMITED
    assert chat.outcomes[RequestOutcomeKind.RATE_LIMITED] == 1


def test_a_cooldown_is_over_at_its_very_end(busy: Shard) -> None:
    busy.register("m1", 4, "fast", tuning=RequestAdmissionTuningConfig(rule="aimd"))
    busy.batch("m1", ("release", "a1", "rate_limited", 3 * SECOND_US, "born", "", ""))
    busy.pass_time(2)
    assert busy.snapshot().domains[RequestDomain.CHAT].blocked_until is not None
    busy.pass_time(1)

    assert busy.snapshot().domains[RequestDomain.CHAT].blocked_until is None


def test_looking_changes_nothing_even_where_time_alone_has_changed_much(busy: Shard) -> None:
    busy.pass_time(3600 * 3)  # members, holds and deadlines are overdue, groups idle
    before = dump(busy.client)
    busy.snapshot()
    busy.audit()
    busy.show()

    assert dump(busy.client) == before


def test_looking_at_a_shard_that_nobody_registered_shows_zeros_and_leaves_no_key(
    shard: Shard,
) -> None:
    seen = shard.snapshot()
    chat = seen.domains[RequestDomain.CHAT]

    assert (seen.generation, seen.static_cap, seen.member_count, seen.aliases) == (None, 0, 0, ())
    assert (chat.current_limit, chat.effective_max, chat.is_used) == (0, 0, False)
    assert (chat.blocked_until, chat.last_outcome, chat.rate_limit_ceiling) == (None, None, None)
    assert shard.audit().ok
    assert "nobody has used this shard" in shard.show()[0]
    assert list(shard.client.scan_iter("fb:*")) == []


def test_leases_of_an_overdue_member_are_shown_until_they_are_swept(busy: Shard) -> None:
    busy.client.zadd(busy.keys["members"], {"m2": START_US * 2})
    busy.pass_time(20)
    seen = busy.snapshot()
    chat = seen.domains[RequestDomain.CHAT]

    assert seen.overdue_member_count == 1
    assert seen.leak_diagnostics == {"overdue_leases": 3}
    assert (seen.aggregate_in_flight, seen.aggregate_active_lease_count) == (4, 1)
    assert (chat.in_flight_count, chat.active_lease_count) == (3, 0)
    assert chat.leak_diagnostics == {"overdue_leases": 3}
    assert seen.members[0].member_id == "m1"
    assert seen.members[0].expires_in_seconds == -5.0
    assert busy.audit().ok
    assert any("overdue 5.0 s" in line for line in busy.show())
    whole, *rest = snapshot_lines(seen.provider_model, seen)
    assert whole.endswith("members 2")
    assert rest[0].split("  ") == ["", "", "overdue members 1", "overdue leases 3"]
    assert sum("overdue leases 3" in line for line in rest) == 2  # of the shard, and of chat

    busy.batch("m2", ("state", "b1"))
    settled = busy.snapshot()
    assert settled.leak_diagnostics == {}
    assert "overdue" not in "".join(snapshot_lines(settled.provider_model, settled))


def test_leases_kept_longer_than_allowed_are_shown(busy: Shard) -> None:
    busy.client.zadd(busy.keys["members"], {"m1": START_US * 2, "m2": START_US * 2})
    busy.pass_time(60)

    assert busy.snapshot().leak_diagnostics == {"overdue_holds": 4}


def test_the_ramp_is_applied_but_not_written(shard: Shard) -> None:
    tuning = RequestAdmissionTuningConfig(rule="aimd", startup_ramp_seconds=10)
    shard.join("m1")
    shard.register("m1", 11, tuning=tuning)
    shard.acquire("m1", "a1")
    shard.pass_time(5)

    assert shard.snapshot().domains[RequestDomain.CHAT].current_limit == 6
    assert read_window(shard.client, shard.keys)["current_limit"] == "1"


def test_a_window_not_born_yet_shows_what_the_first_acquire_will_find(shard: Shard) -> None:
    shard.join("m1")
    shard.register(
        "m1",
        8,
        initial_limits={RequestDomain.IMAGE: 2},
        max_limit_clamps={RequestDomain.IMAGE: 5},
    )
    before = shard.snapshot().domains[RequestDomain.IMAGE]
    shard.acquire("m1", "a1", domain=RequestDomain.IMAGE)
    after = shard.snapshot().domains[RequestDomain.IMAGE]

    assert (before.is_used, after.is_used) == (False, True)
    assert (before.current_limit, before.effective_max) == (2, 5)
    assert (after.current_limit, after.effective_max) == (2, 5)


def test_lists_are_bounded_and_say_how_many_there_are(shard: Shard) -> None:
    shard.join("m1")
    shard.register("m1", 1)
    shard.acquire("m1", "first")
    for i in range(103):
        shard.acquire("m1", f"a{i}", f"g{i}")
        shard.join(f"later{i}")
    seen = shard.snapshot()
    chat = seen.domains[RequestDomain.CHAT]

    assert (len(chat.waiting_groups), chat.waiting_group_count) == (100, 103)
    assert (len(seen.members), seen.member_count) == (100, 104)
    assert {"... and 3 more", "... and 4 more"} <= set(shard.show())
    assert shard.snapshot(max_rows=0).members == ()
    assert shard.snapshot(max_rows=0).domains[RequestDomain.CHAT].waiting_groups == ()


async def test_provider_finds_every_shard_through_the_index(redis_url: str) -> None:
    small = ProviderModelKey(provider_name="local", model_id="mock-small")
    async with await ServerConnection.open(redis_url) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        for provider_model in (LARGE, small):
            await controller.register(provider_model, "main", 2)
        await connection.client.sadd(SHARDS_KEY, "pool:main")
        resource = RequestResourceKey(provider_model=LARGE)
        await controller.acquire(RequestAdmissionItem(resource=resource))
        provider = RequestPressureSnapshotProvider(connection)

        assert set(await provider.global_snapshots()) == {LARGE, small}
        windows = await provider.snapshots()
        assert set(windows) == {resource}
        assert windows[resource].in_flight_count == 1
        assert (await provider.snapshot(resource)).in_flight_count == 1
        assert (await provider.global_snapshot(LARGE)).aggregate_in_flight == 1
        assert (await provider.audit(LARGE)).ok
        await controller.close()
        assert (await provider.audit(LARGE)).ok
        assert (await provider.snapshot(resource)).in_flight_count == 0


async def test_a_server_that_went_away_is_a_typed_error(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as own:
        async with await ServerConnection.open(own.url) as connection:
            own.kill()
            with pytest.raises(CoordinatorUnavailable):
                await RequestPressureSnapshotProvider(connection).global_snapshot(LARGE)
