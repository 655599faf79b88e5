"""What callers get while the server is away: ``wait`` and ``local_share`` (docs/adr/0024)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from structlog.testing import capture_logs

import forebay
from forebay.coordinator.coordinator import Coordinator
from tests.contract.chat_domain import CHAT, MODEL, is_idle, item, when
from tests.support import wait_until
from tests.support_proxy import FaultyProxy
from tests.support_scene import AIMD, Controller, soon
from tests.support_tasks import joined, task

CAP = 5
TTL_SECONDS = 0.6
AWAY = ["refuses", "stalls"]


def settings(mode: Literal["wait", "local_share"]) -> forebay.MemberSettings:
    return forebay.MemberSettings(
        ttl_seconds=TTL_SECONDS,
        call_timeout_seconds=0.3,
        recheck_seconds=0.1,
        on_unavailable=mode,
    )


@dataclass(kw_only=True)
class Fleet:
    """Members behind one proxy each, and how many calls they make at once."""

    url: str
    proxies: list[FaultyProxy] = field(default_factory=list)
    members: list[Controller] = field(default_factory=list)
    running: int = 0
    most: int = 0
    served: int = 0
    degraded: int = 0
    is_back: bool = False
    used_by_late: int = 0

    def lose_server(self, how: str) -> None:
        for proxy in self.proxies:
            proxy.refuse() if how == "refuses" else proxy.stall()

    async def find_server(self) -> None:
        for proxy in self.proxies:
            proxy.flow()
            await proxy.accept()
        self.is_back = True

    def note_late(self) -> None:
        """Note the parts of members still away when another asks the server without a bound."""
        on = [local for local in self.locals() if local.is_on]
        if self.is_back and len(on) < len(self.members):
            late = [one._told[0].part(CAP) for one in on if one._back_until is None and one._told]
            self.used_by_late = max(self.used_by_late, sum(late))

    async def call(self, member: Controller) -> None:
        """Call the provider once, for less than a lease outlives its server."""
        with contextlib.suppress(forebay.CoordinatorUnavailable):
            lease = await member.acquire(item())
            self.note_late()
            self.running += 1
            self.most = max(self.most, self.running)
            self.served += 1
            self.degraded += lease.degraded
            await asyncio.sleep(0.02)
            self.running -= 1
            await member.release(lease, forebay.SUCCESS)

    async def call_on(self, member: Controller) -> None:
        while True:
            self.note_late()
            await self.call(member)
            await asyncio.sleep(0)

    def parts(self) -> list[int]:
        told = [local.watch.told for local in self.locals()]
        return [one[0].part(CAP) if one else 0 for one in told]

    def locals(self) -> list[Any]:
        shards: list[Any] = [member._shards[MODEL] for member in self.members]
        return [shard.standby._local for shard in shards]


@contextlib.asynccontextmanager
async def open_fleet(
    url: str, mode: Literal["wait", "local_share"], count: int, cap: int = CAP
) -> AsyncIterator[Fleet]:
    fleet = Fleet(url=url)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(count):
            proxy = await stack.enter_async_context(FaultyProxy(url))
            member = await stack.enter_async_context(forebay.connect(proxy.url, settings(mode)))
            await member.register(MODEL, f"m{number}", cap, AIMD)
            fleet.proxies.append(proxy)
            fleet.members.append(member)
        yield fleet
        await fleet.find_server()


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
        async with await Coordinator.open(redis_url) as observer:
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
        await Coordinator.open(redis_url) as other,
        joined(other),
        await Coordinator.open(proxy.url, settings("wait")) as connection,
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
    await wait_until(lambda: sum(fleet.parts()) == CAP and all(fleet.parts()))


@pytest.mark.parametrize("how", AWAY)
async def test_parts_are_used_while_the_server_is_away_and_counted_when_it_is_back(
    redis_url: str, how: str
) -> None:
    async with open_fleet(redis_url, "local_share", 2) as fleet:
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
        async with await Coordinator.open(redis_url) as observer:
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
        # A member that is back later than others keep to their parts is one cut off alone.
        assert CAP <= fleet.most <= CAP + fleet.used_by_late
        fleet.running = 0


async def test_a_member_without_a_part_waits_to_the_end_of_its_own_wait(redis_url: str) -> None:
    async with open_fleet(redis_url, "local_share", 2, cap=1) as fleet:
        await wait_until(lambda: sum(part > 0 for part in fleet.parts()) == 2)
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


async def test_an_outage_is_logged_once_when_parts_are_used_and_once_at_its_end(
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
    assert [entry["event"] for entry in told] == ["local_share_began", "local_share_ended"]
    assert told[0]["part_of_cap"] == CAP
    assert told[1]["leases_given"] >= 20
    names = [entry["event"] for entry in logs]
    assert names.count("coordinator_unavailable") == names.count("coordinator_available") == 1


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
        local: Any = member._shards[MODEL].standby
        await wait_until(lambda: len(local._local._waiting[CHAT.domain]) == 1)
        member.release(held, forebay.SUCCESS)  # gives it to the one that waits
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(waiting)
        again = await soon(member.acquire(item()))
        await member.release(again, forebay.SUCCESS)
        assert again.item.resource == CHAT
