"""A crash costs what the dead process held, and nothing else (design 06, *Suspects*; issue 12.4).

Processes are killed and stopped for real. Instants are those that the server noted, by the shard's
clock; rechecks are a minute away, so that nothing but expiry and wake-ups moves what is free.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support import wait_until
from tests.support_members import (
    KINDS,
    PATIENCE_SECONDS,
    Kind,
    Members,
)
from tests.support_proxy import FaultyProxy

Open = Callable[..., contextlib.AbstractAsyncContextManager[Members]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def opened(redis_url: str, kind: Kind) -> Open:
    """Opens a shard of so many leases; in the end its books must agree."""

    @contextlib.asynccontextmanager
    async def open_members(cap: int, **terms: float) -> AsyncIterator[Members]:
        async with Members(redis_url, kind, cap, **terms) as members:
            yield members
            await members.check_books()

    return open_members


async def check_early_end(members: Members, name: str, expires_us: int) -> None:
    """Check that a membership was ended as nobody listened, neither too early nor at its TTL."""
    (end,) = await members.until_ended(name)
    assert end["reason"] == "not_listening"
    (suspected,) = [e for e in members.events("member_suspected") if e["member_id"] == name]
    assert int(end["at_us"]) - int(suspected["at_us"]) >= members.interval_us
    assert int(end["at_us"]) < expires_us


async def beats_of(members: Members, names: list[str]) -> None:
    """Wait until members have beaten anew."""
    before = {name: members.expires_us(name) for name in names}
    await wait_until(
        lambda: all(members.expires_us(name) > before[name] for name in names),
        timeout=PATIENCE_SECONDS,
    )


async def until_us(members: Members, at_us: int) -> None:
    """Wait until an instant of the server's clock."""
    await wait_until(lambda: members.now_us() >= at_us, timeout=PATIENCE_SECONDS)


# -- dead


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
@pytest.mark.parametrize("waits", [0, 2], ids=["without waiters", "with waiters"])
async def test_a_dead_member_costs_what_it_held(
    opened: Open, how: signal.Signals, waits: int
) -> None:
    async with opened(4) as members:
        dead, live = await members.start(2)
        await members.let_hold(dead, 2)
        await members.let_hold(live, 2)
        if waits:
            await members.let_wait(dead, waits)
        await members.let_wait(live, 3)
        name = members.name_of(dead)
        dead.send(how)
        await dead.process.wait()
        expires_us = members.expires_us(name)
        live.order("release", 1)
        await live.until_granted(3)  # and not those of the dead that stand before it
        await check_early_end(members, name, expires_us)
        await live.until_granted(5)
        assert members.leases_lost_by(name) == 2
        assert members.leases_of(dead) == members.waits(dead) == 0
        live.order("release", 4)
        assert set(await live.until_released(5)) == {"released"}
        assert list(members.ends()) == [name]


async def test_an_operator_who_listens_to_everything_hides_no_death(opened: Open) -> None:
    async with opened(2) as members:
        dead, live = await members.start(2)
        with members.client.pubsub() as operator:
            operator.psubscribe("fb:*")
            await wait_until(lambda: members.client.pubsub_numpat() == 1)
            await members.let_hold(dead, 2)
            await members.let_wait(live, 2)
            name = members.name_of(dead)
            dead.send(signal.SIGKILL)
            await dead.process.wait()
            await check_early_end(members, name, members.expires_us(name))
            await live.until_granted(2)


async def test_a_member_that_stands_still_is_ended_at_its_ttl_and_told_so(opened: Open) -> None:
    """As a machine that vanished: its sockets are open, so nobody can know before."""
    async with opened(2) as members:
        stopped, live = await members.start(2)
        await members.let_hold(stopped, 2)
        await members.let_wait(live, 2)
        name = members.name_of(stopped)
        stopped.send(signal.SIGSTOP)
        expires_us = members.expires_us(name)
        (end,) = await members.until_ended(name)
        assert end["reason"] == "member_lost"
        assert expires_us <= int(end["at_us"]) < expires_us + members.interval_us
        await live.until_granted(2)
        stopped.send(signal.SIGCONT)
        await wait_until(lambda: stopped.lost == stopped.granted, timeout=PATIENCE_SECONDS)
        stopped.order("release", 2)
        assert await stopped.until_released(2) == ["stale_lease"] * 2
        live.order("release", 2)
        assert await live.until_released(2) == ["released"] * 2
        await members.let_hold(stopped, 2)
        assert members.name_of(stopped) != name


async def test_three_of_ten_members_die(opened: Open) -> None:
    async with opened(10) as members:
        everybody = await members.start(10)
        for member in everybody:
            await members.let_hold(member, 1)
        dead, live = everybody[:3], everybody[3:]
        for member in live:
            await members.let_wait(member, 1)
        expires_us = {members.name_of(member): 0 for member in dead}
        for member in dead:
            member.send(signal.SIGKILL)
        for member in dead:
            await member.process.wait()
        for name in expires_us:
            expires_us[name] = members.expires_us(name)
        for name, at_us in expires_us.items():
            await check_early_end(members, name, at_us)
            assert members.leases_lost_by(name) == 1
        await wait_until(
            lambda: sum(len(member.granted) for member in live) == 7 + 3, timeout=PATIENCE_SECONDS
        )
        assert set(members.ends()) == set(expires_us)
        assert all(members.leases_of(member) == len(member.granted) for member in live)


async def test_a_deploy_costs_the_new_processes_nothing_that_they_hold(opened: Open) -> None:
    async with opened(4) as members:
        old = await members.start(3)
        for member in old:
            await members.let_hold(member, 1)
        await members.let_hold(old[0], 1)
        for member in old:
            await members.let_wait(member, 2)
        new = await members.start(3)
        for member in new:
            await members.let_wait(member, 2)
        names = [members.name_of(member) for member in old]
        for member in old:
            member.send(signal.SIGTERM)
            await member.process.wait()
        await wait_until(
            lambda: sum(len(member.granted) for member in new) == 4, timeout=PATIENCE_SECONDS
        )
        assert set(await reasons_of(members, names)) == {"not_listening"}
        assert set(members.ends()) == set(names)


async def reasons_of(members: Members, names: list[str]) -> list[str]:
    return [end["reason"] for end in await members.until_ended(*names)]


# -- cut off


@pytest.mark.long
async def test_nobody_is_ended_where_all_were_cut_off(opened: Open) -> None:
    """The server's own network was away for 6 s, and took and brought back one after another."""
    async with opened(4, ttl_seconds=15.0) as members, contextlib.AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(FaultyProxy(members.url)) for _ in range(3)]
        everybody = [(await members.start(1, proxy.url))[0] for proxy in proxies]
        (first, second, third), others = everybody, proxies[1:]
        for member, count in zip(everybody, (1, 2, 1), strict=True):
            await members.let_hold(member, count)
        for member, count in zip(everybody, (2, 1, 1), strict=True):
            await members.let_wait(member, count)
        names = [members.name_of(member) for member in everybody]
        await beats_of(members, names[:1])
        proxies[0].refuse()
        await wait_until(lambda: not members.is_heard(names[0]), timeout=PATIENCE_SECONDS)
        second.order("release", 1)  # the first would be next, and is found not to listen
        await wait_until(lambda: len(second.granted) + len(third.granted) == 4)
        assert [event["member_id"] for event in members.events("member_suspected")] == names[:1]
        for proxy in others:
            proxy.refuse()
        await until_us(members, members.now_us() + 6_000_000)
        for proxy, name in zip((*others, proxies[0]), (*names[1:], names[0]), strict=True):
            await proxy.accept()
            await beats_of(members, [name])
        await wait_until(lambda: all(map(members.is_heard, names)), timeout=PATIENCE_SECONDS)
        # Whoever was found not to listen meanwhile is looked at again after an interval.
        await until_us(members, members.now_us() + members.interval_us)
        for member in (second, third):
            member.order("release", members.leases_of(member))
        await wait_until(lambda: len(first.granted) == 3, timeout=PATIENCE_SECONDS)
        assert members.ends() == {}
        assert not any(member.lost for member in everybody)
        assert {why for member in everybody for why in member.released.values()} == {"released"}


@pytest.mark.parametrize("at", ["while it is cut off", "after it is back"])
async def test_a_member_that_was_cut_off_claims_nothing_it_lost(opened: Open, at: str) -> None:
    async with opened(2) as members, FaultyProxy(members.url) as proxy:
        (away,) = await members.start(1, proxy.url)
        (live,) = await members.start(1)
        await members.let_hold(away, 2)
        await members.let_wait(live, 2)
        name = members.name_of(away)
        proxy.refuse()
        await live.until_granted(2)
        assert (await reasons_of(members, [name]))[0] in {"not_listening", "member_lost"}
        if at == "while it is cut off":
            away.order("release", 2)
        await proxy.accept()
        if at == "after it is back":
            await wait_until(lambda: away.lost == away.granted, timeout=PATIENCE_SECONDS)
            away.order("release", 2)
        assert await away.until_released(2) == ["stale_lease"] * 2
        live.order("release", 2)
        assert await live.until_released(2) == ["released"] * 2


# -- listening again


async def test_a_member_that_listens_again_keeps_its_place(redis_url: str) -> None:
    async with Members(redis_url, "requests", 1) as members, FaultyProxy(redis_url) as proxy:
        holder, after = await members.start(2)
        (first,) = await members.start(1, proxy.url)
        await members.let_hold(holder, 1)
        await members.let_wait(first, 1)
        await members.let_wait(after, 2)
        name = members.name_of(first)
        proxy.refuse_subscribers()
        await wait_until(lambda: not members.is_heard(name))
        holder.order("release", 1)
        await after.until_granted(1)  # a waiter to whom nobody listens is not chosen
        proxy.accept_subscribers()
        await wait_until(lambda: members.is_heard(name), timeout=PATIENCE_SECONDS)
        await is_no_suspect(members, name)
        after.order("release", 1)
        await first.until_granted(1)
        first.order("release", 1)
        await after.until_granted(2)
        assert members.ends() == {}
        await members.check_books()


async def is_no_suspect(members: Members, name: str) -> None:
    """Wait until the member has called: it asks for what it waits for, as it listens again."""
    suspects = members.keys["suspects"]
    await wait_until(lambda: members.client.zscore(suspects, name) is None)


async def test_an_idle_worker_that_listens_again_asks_for_work(redis_url: str) -> None:
    async with Members(redis_url, "tasks", 1) as members, FaultyProxy(redis_url) as proxy:
        (holder,) = await members.start(1)
        (idle,) = await members.start(1, proxy.url)
        await members.let_hold(holder, 1)
        await members.let_wait(idle, 1)
        name = members.name_of(idle)
        proxy.refuse_subscribers()
        await wait_until(lambda: not members.is_heard(name))
        holder.order("release", 1)
        assert await holder.until_released(1) == ["released"]
        assert members.waits(idle) == 0  # it was found not to listen, and so is not woken
        proxy.accept_subscribers()
        await idle.until_granted(1)
        assert members.ends() == {}
        await members.check_books()
