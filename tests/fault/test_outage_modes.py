"""What callers get while the server is away: ``wait`` and ``local_share`` (docs/adr/0024)."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

import forebay
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import CHAT, MODEL, is_idle, item, when
from tests.support import wait_until
from tests.support_outage_fleet import CAP, Fleet, open_fleet, settings
from tests.support_outages import tried
from tests.support_proxy import FaultyProxy
from tests.support_scene import soon
from tests.support_tasks import joined, task

AWAY = ["refuses", "stalls"]


# -- wait


@pytest.mark.parametrize("how", AWAY)
async def test_waiting_callers_get_their_lease_when_the_server_is_back(
    redis_url: str, how: str
) -> None:
    async with open_fleet(redis_url, "wait", 1) as fleet:
        (member,) = fleet.members
        fleet.lose_server(how)
        acquiring = asyncio.create_task(member.acquire(item()))
        other = forebay.ProviderModelKey(provider_name="p", model_id="other")
        registering = asyncio.create_task(member.register(other, "m", 3))
        with pytest.raises(forebay.CoordinatorUnavailable):  # it waits for nothing
            await soon(member.try_acquire(item()))
        with pytest.raises(forebay.RequestAdmissionError, match=r"no lease for .* within"):
            await soon(member.acquire(item(queue_wait_timeout_seconds=0.4)))
        assert not acquiring.done()
        assert not registering.done()
        await fleet.find_server()
        lease = await soon(acquiring)
        assert not lease.degraded
        assert await soon(registering) == 3
        assert (await soon(member.release(lease, forebay.SUCCESS))).released
        async with await ServerConnection.open(redis_url) as observer:
            await when(observer, is_idle)


async def test_waiting_ends_when_the_controller_is_closed(redis_url: str) -> None:
    async with open_fleet(redis_url, "wait", 1) as fleet:
        (member,) = fleet.members
        fleet.lose_server("refuses")
        acquiring = asyncio.create_task(member.acquire(item()))
        await asyncio.sleep(0)
        await soon(member.close())
        with pytest.raises((forebay.RequestAdmissionError, forebay.CoordinatorUnavailable)):
            await soon(acquiring)


@pytest.mark.parametrize("how", AWAY)
async def test_a_waiting_submission_is_told_once_that_its_task_is_new(
    redis_url: str, how: str
) -> None:
    async with (
        FaultyProxy(redis_url) as proxy,
        await ServerConnection.open(redis_url) as other,
        joined(other),
        await tried(lambda: ServerConnection.open(proxy.url, settings("wait"))) as connection,
        joined(connection) as tasks,
    ):
        proxy.refuse() if how == "refuses" else proxy.stall()
        submitting = asyncio.create_task(tasks.queue.submit(task("a")))
        with pytest.raises(forebay.CoordinatorUnavailable):
            await soon(tasks.set_limit("gpu", 2))
        assert not submitting.done()
        proxy.flow()
        await proxy.accept()
        assert await soon(submitting) is True
        assert await soon(tasks.queue.submit(task("a"))) is False


# -- local_share


async def entitled(fleet: Fleet) -> None:
    await wait_until(lambda: sum(fleet.shares()) == CAP and all(fleet.shares()))


@pytest.mark.parametrize("how", AWAY)
async def test_shares_are_used_while_the_server_is_away_and_counted_when_it_is_back(
    redis_url: str, how: str
) -> None:
    async with open_fleet(redis_url, "local_share", 2, ttl_seconds=1.5) as fleet:
        await entitled(fleet)
        fleet.lose_server(how)
        acquiring = [
            asyncio.create_task(member.acquire(item())) for member in fleet.members for _ in "12345"
        ]
        await wait_until(lambda: sum(one.done() for one in acquiring) == CAP)
        denied = await soon(fleet.members[0].try_acquire(item()))
        assert denied.reason is forebay.RequestDenialReason.NO_CAPACITY
        given = [one.result() for one in acquiring if one.done()]
        assert all(lease.degraded for lease in given)
        assert sorted(
            sum(lease.member_id == member_id for lease in given)
            for member_id in {lease.member_id for lease in given}
        ) == [2, 3]
        holders = {one: fleet.members[n // 5] for n, one in enumerate(acquiring)}
        for one in acquiring:
            if one.done():
                holders[one].assert_held(one.result())
        await fleet.find_server()
        async with await ServerConnection.open(redis_url) as observer:
            await when(observer, lambda seen: seen.in_flight_count == CAP)
            for one in acquiring:
                lease = await soon(one)
                holders[one].assert_held(lease)
                assert (await soon(holders[one].release(lease, forebay.SUCCESS))).released
            await when(observer, is_idle)


@pytest.mark.parametrize("how", AWAY)
async def test_calls_in_flight_stay_within_the_window_before_during_and_after(
    redis_url: str, how: str
) -> None:
    async with open_fleet(redis_url, "local_share", 3) as fleet:
        await entitled(fleet)
        callers = [
            asyncio.create_task(fleet.call_on(member)) for member in fleet.members for _ in "1234"
        ]
        await wait_until(lambda: fleet.served > 50)
        fleet.lose_server(how)
        await wait_until(lambda: fleet.degraded > 50)
        await fleet.find_server()
        before = fleet.served - fleet.degraded
        await wait_until(lambda: fleet.served - fleet.degraded > before + 100)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        # A member that is back later than others keep to their shares is one cut off alone.
        assert CAP <= fleet.most <= CAP + fleet.used_by_late
        fleet.running = 0


@pytest.mark.parametrize("how", AWAY)
async def test_a_call_takes_the_slot_of_one_that_ends_while_leases_may_be_held(
    redis_url: str, how: str
) -> None:
    async with open_fleet(redis_url, "local_share", 1, ttl_seconds=3600.0) as fleet:
        await entitled(fleet)
        (member,) = fleet.members
        held = [await soon(member.acquire(item())) for _ in range(2)]
        fleet.lose_server(how)
        acquiring = asyncio.create_task(member.acquire(item()))
        await wait_until(lambda: fleet.locals()[0].is_on)
        given = held.pop()
        for _ in range(5):  # calls in one slot, one after another
            ended = await soon(member.release(given, forebay.SUCCESS))
            assert ended.reason in {forebay.ReleaseReason.DEFERRED, forebay.ReleaseReason.RELEASED}
            given = await soon(acquiring)
            assert given.degraded
            member.assert_held(given)
            acquiring = asyncio.create_task(member.acquire(item()))
        await asyncio.sleep(0)
        assert not acquiring.done()
        await fleet.find_server()
        async with await ServerConnection.open(redis_url) as observer:
            assert not (await soon(acquiring)).degraded
            await when(observer, lambda seen: seen.in_flight_count == 3)
            for lease in [*held, given, acquiring.result()]:
                assert (await soon(member.release(lease, forebay.SUCCESS))).released
            await when(observer, is_idle)


async def test_a_lease_that_was_given_here_is_stated_to_a_shard_that_lost_all(
    redis_url: str,
) -> None:
    async with open_fleet(redis_url, "local_share", 1, ttl_seconds=3.0) as fleet:
        await entitled(fleet)
        (member,) = fleet.members
        held = await soon(member.acquire(item()))
        fleet.lose_server("refuses")
        acquiring = asyncio.create_task(member.acquire(item()))
        await wait_until(lambda: fleet.locals()[0].is_on)
        await soon(member.release(held, forebay.SUCCESS))
        given = await soon(acquiring)
        async with await ServerConnection.open(redis_url) as observer:
            await observer.client.flushall()
            await fleet.find_server()
            await when(observer, lambda seen: seen.in_flight_count == 1)
            member.assert_held(given)
            assert (await soon(member.release(given, forebay.SUCCESS))).released
            await when(observer, is_idle)


async def test_a_member_without_a_share_waits_to_the_end_of_its_own_wait(redis_url: str) -> None:
    async with open_fleet(redis_url, "local_share", 2, cap=1) as fleet:
        await wait_until(lambda: sum(share > 0 for share in fleet.shares()) == 2)
        fleet.lose_server("refuses")
        decisions = await asyncio.gather(
            *(m.acquire(item(queue_wait_timeout_seconds=1.5)) for m in fleet.members),
            return_exceptions=True,
        )
        leases = [one for one in decisions if isinstance(one, forebay.RequestAdmissionLease)]
        denials = [one for one in decisions if isinstance(one, forebay.RequestAdmissionError)]
        assert (len(leases), len(denials)) == (1, 1)
        assert denials[0].denied.reason is forebay.RequestDenialReason.QUEUE_TIMEOUT
        for member in fleet.members:
            await soon(member.release(leases[0], forebay.SUCCESS))


async def test_an_outage_is_logged_once_when_shares_are_used_and_once_at_its_end(
    redis_url: str,
) -> None:
    with capture_logs() as logs:
        async with open_fleet(redis_url, "local_share", 1) as fleet:
            (member,) = fleet.members
            fleet.lose_server("refuses")
            for _ in range(20):
                lease = await soon(member.acquire(item()))
                assert lease.degraded
                assert member.known(degraded=True) == [MODEL]
                assert (await member.release(lease, forebay.SUCCESS)).diagnostics == {
                    "degraded": True
                }
            await fleet.find_server()
            await wait_until(lambda: "local_share_ended" in {entry["event"] for entry in logs})
            lease = await soon(member.acquire(item()))
            assert not lease.degraded
            assert member.known(degraded=False) == member.known() == [MODEL]
            assert (await soon(member.release(lease, forebay.SUCCESS))).diagnostics == {}
    told = [entry for entry in logs if entry["event"].startswith("local_share")]
    # Not more for 20 calls; a machine that is slow at the end may begin another outage.
    assert [entry["event"] for entry in told][:2] == ["local_share_began", "local_share_ended"]
    assert told[0]["share_of_cap"] == CAP
    assert told[1]["leases_given"] >= 20
    names = {entry["event"] for entry in logs}
    assert {"coordinator_unavailable", "coordinator_available"} <= names


async def test_a_provider_that_refuses_is_left_alone(redis_url: str) -> None:
    async with open_fleet(redis_url, "local_share", 1) as fleet:
        (member,) = fleet.members
        fleet.lose_server("refuses")
        lease = await soon(member.acquire(item()))
        refused = forebay.RequestReleaseOutcome(
            kind=forebay.RequestOutcomeKind.RATE_LIMITED, retry_after_seconds=60.0
        )
        await member.release(lease, refused)
        denied = await soon(member.try_acquire(item()))
        assert denied.reason is forebay.RequestDenialReason.COOLDOWN


async def test_a_grant_that_crosses_a_cancellation_frees_its_part(redis_url: str) -> None:
    async with open_fleet(redis_url, "local_share", 1, cap=1) as fleet:
        (member,) = fleet.members
        fleet.lose_server("refuses")
        held = await soon(member.acquire(item()))
        waiting = asyncio.create_task(member.acquire(item()))
        (local,) = fleet.locals()
        await wait_until(lambda: local._waiting.has(CHAT.domain))
        member.release(held, forebay.SUCCESS)  # gives it to the one that waits
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(waiting)
        again = await soon(member.acquire(item()))
        await member.release(again, forebay.SUCCESS)
        assert again.item.resource == CHAT
