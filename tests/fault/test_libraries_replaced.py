"""Whoever may load a library may replace ours: no member trusts a name, and all of them heal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import redis
from structlog.testing import capture_logs

import forebay
from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.scripts.composing import FUNCTIONS, Script, compose, script
from forebay.coordinator.server.connections import open_async, open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.libraries import MOST_NAMES, Libraries
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import CHAT, MODEL, item
from tests.support import wait_until
from tests.support_libraries import OTHER_CODE, code_on, replace_library
from tests.support_scene import Controller
from tests.support_tasks import group, joined, task

SETTINGS = forebay.MemberSettings(ttl_seconds=3.0)
BATCH = script("requests/batch")
OF_REQUESTS = [script(name) for name in FUNCTIONS if not name.startswith("tasks/")]


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """A server whose libraries no other test meets."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def admin(own_server: EmbeddedServer) -> Iterator[redis.Redis]:
    with open_sync(parse_url(own_server.url)) as client:
        yield client


async def works(requests: Controller) -> bool:
    """Whether an acquire and a release are carried out."""
    try:
        lease = await requests.acquire(item())
    except forebay.CoordinatorError:  # of the call that met the other code
        return False
    return (await requests.release(lease, forebay.SUCCESS)).released


def beats_of(requests: Controller) -> Callable[[], float]:
    def acknowledged_at() -> float:
        membership = next(iter(requests._shards.values())).session.membership
        return 0.0 if membership is None else membership.acknowledged_at

    return acknowledged_at


@pytest.mark.parametrize("answer", OTHER_CODE)
@pytest.mark.parametrize("which", OF_REQUESTS, ids=lambda which: which.name)
async def test_members_heal_from_other_code_under_their_library_s_name(
    own_server: EmbeddedServer, admin: redis.Redis, which: Script, answer: str
) -> None:
    async with (
        forebay.connect(own_server.url, SETTINGS) as one,
        forebay.connect(own_server.url, SETTINGS) as other,
    ):
        for requests in (one, other):
            await requests.register(MODEL, "main", 4)
            assert await works(requests)
        code = replace_library(admin, which, answer)
        async with forebay.connect(own_server.url, SETTINGS) as newcomer:
            await newcomer.register(MODEL, "main", 4)
            for requests in (one, other, newcomer):
                await wait_until(lambda requests=requests: works(requests))
                beat = beats_of(requests)
                before = beat()
                await wait_until(lambda beat=beat, before=before: beat() > before)
            assert code_on(admin, which.function) == code  # nobody replaced it
            assert (await one.pressure.snapshot(CHAT)).in_flight_count == 0
            assert (await one.pressure.audit(MODEL)).ok


@pytest.mark.parametrize("answer", OTHER_CODE)
async def test_a_pool_heals_from_other_code_under_its_library_s_name(
    own_server: EmbeddedServer, admin: redis.Redis, answer: str
) -> None:
    tasks_batch = script("tasks/batch")
    async with (
        await ServerConnection.open(own_server.url, SETTINGS) as connection,
        joined(connection) as tasks,
    ):
        await tasks.queue.enqueue([task("before", group("g"))])
        code = replace_library(admin, tasks_batch, answer)

        async def takes_a_task() -> bool:
            try:
                await tasks.queue.enqueue([task("after", group("g"))])
            except forebay.CoordinatorError:  # of the call that met the other code
                return False
            return True

        await wait_until(takes_a_task)
        assert (await tasks.queue.view()).queued_total == 2
        assert code_on(admin, tasks_batch.function) == code


async def test_a_function_s_name_in_another_library_is_left_to_it(
    own_server: EmbeddedServer, admin: redis.Redis
) -> None:
    admin.function_load(
        f"#!lua name=other\nredis.register_function('{BATCH.function}', function() return 1 end)"
    )
    async with forebay.connect(own_server.url, SETTINGS) as requests:
        await requests.register(MODEL, "main", 4)
        assert await works(requests)
    assert admin.fcall(BATCH.function, 0) == 1


async def test_a_replaced_library_is_told_with_its_name_and_a_remedy(
    own_server: EmbeddedServer, admin: redis.Redis
) -> None:
    replace_library(admin, BATCH)
    with capture_logs() as logs:
        async with forebay.connect(own_server.url, SETTINGS) as requests:
            await requests.register(MODEL, "main", 4)
            assert await works(requests)
    (told,) = [line for line in logs if line["event"] == "function_library_replaced"]
    assert told["library"] == BATCH.function
    assert told["used_instead"] == f"{BATCH.function}_2"
    assert "FUNCTION DELETE" in told["remedy"]


async def test_where_every_name_is_taken_a_member_is_refused_in_words(
    own_server: EmbeddedServer, admin: redis.Redis
) -> None:
    for number in range(1, MOST_NAMES + 1):
        name = BATCH.function if number == 1 else f"{BATCH.function}_{number}"
        replace_library(admin, BATCH, name=name)
    async with forebay.connect(own_server.url, SETTINGS) as requests:
        with pytest.raises(ConfigurationError, match="see who may call FUNCTION LOAD"):
            await requests.register(MODEL, "main", 4)
        admin.function_delete(f"{BATCH.function}_{MOST_NAMES}")
        await requests.register(MODEL, "main", 4)
        assert await works(requests)


async def test_two_versions_of_a_library_stay_side_by_side(
    own_server: EmbeddedServer, admin: redis.Redis
) -> None:
    other = compose("requests/batch", {"lib/clock": "local function server_time_us() return 1 end"})
    async with open_async(parse_url(own_server.url)) as client:
        for _ in range(2):
            for version in (BATCH, other):
                await Libraries().ensure(client, [version])
        assert {code_on(admin, one.function) for one in (BATCH, other)} == {
            BATCH.library,
            other.library,
        }
        assert len(await client.function_list()) == 2


async def test_members_that_load_a_library_at_once_find_the_same(
    own_server: EmbeddedServer, admin: redis.Redis
) -> None:
    members = [Libraries() for _ in range(8)]
    async with open_async(parse_url(own_server.url)) as client:
        await asyncio.gather(*(member.ensure(client, [BATCH]) for member in members))
    assert {member.function(BATCH) for member in members} == {BATCH.function}
    assert len(admin.function_list()) == 1


async def test_an_error_of_the_script_s_own_code_is_told_and_not_tried_again(
    own_server: EmbeddedServer, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = "local function server_time_us() error('own fault') end"
    broken = compose("requests/batch", {"lib/clock": clock})
    monkeypatch.setattr("forebay.coordinator.requests.shard.script", lambda _name: broken)
    async with forebay.connect(own_server.url, SETTINGS) as requests:
        with pytest.raises(forebay.CoordinatorError, match="own fault"):
            await requests.register(MODEL, "main", 4)
        assert admin.info("commandstats")["cmdstat_fcall"]["failed_calls"] == 1
