"""``redis+cluster://``: shards on several masters, slots that move, masters that die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner

import forebay
from forebay.cli import cli
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.keys import SHARDS_KEY, request_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.join_call import MEMBER_SCRIPTS, call_join
from tests.contract.chat_domain import CHAT, MODEL, item
from tests.support import wait_until
from tests.support_cluster import HOST, RunningCluster, is_whole, running_cluster
from tests.support_scene import Controller

CAP = 4
SECONDS = 60.0
SETTINGS = forebay.MemberSettings(ttl_seconds=15.0, call_timeout_seconds=30.0)
OTHER = forebay.ProviderModelKey(provider_name="p", model_id="other")
HOUR_US = 3600 * 10**6
META = request_shard(MODEL)["meta"]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(started: RunningCluster) -> Iterator[RunningCluster]:
    """The module's cluster, whole and empty when the test begins."""
    asyncio.run(wait_until(lambda: is_whole(started), SECONDS))
    started.flush()
    yield started
    started.start_ended()


@dataclass(slots=True)
class Load:
    """What callers of two members saw.

    Attributes:
        members: the two.
        granted: how many calls were granted.
        running: calls under leases that are not lost.
        most_running: the most there were at a time.
    """

    members: tuple[Controller, Controller]
    granted: int = 0
    running: set[str] = field(default_factory=set)
    most_running: int = 0

    async def more(self, count: int = 50) -> None:
        """Wait until so many more calls were granted."""
        goal = self.granted + count
        await wait_until(lambda: self.granted >= goal, SECONDS)

    async def agrees(self) -> bool:
        """Whether nothing is held any more, and the books of the shard agree."""
        seen = await self.members[0].pressure.snapshot(CHAT)
        audit = await self.members[0].pressure.audit(MODEL)
        return seen.in_flight_count == 0 and seen.waiters == 0 and audit.ok


@asynccontextmanager
async def load(cluster: RunningCluster) -> AsyncIterator[Load]:
    """Call under leases of two members for the length of the block; then the books agree."""
    is_over = False

    def lose(lease: forebay.RequestAdmissionLease, _why: str) -> None:
        loaded.running.discard(lease.lease_id)

    async def call(requests: Controller) -> None:
        while not is_over:
            lease = await requests.acquire(item())
            loaded.granted += 1
            loaded.running.add(lease.lease_id)
            loaded.most_running = max(loaded.most_running, len(loaded.running))
            await asyncio.sleep(0)
            loaded.running.discard(lease.lease_id)
            await requests.release(lease, forebay.SUCCESS)

    async with (
        forebay.connect(cluster.url, SETTINGS, on_lease_lost=lose) as one,
        forebay.connect(cluster.url, SETTINGS, on_lease_lost=lose) as other,
    ):
        loaded = Load((one, other))
        for requests in (one, other):
            await requests.register(MODEL, "main", CAP)
        callers = [asyncio.create_task(call(requests)) for requests in (one, other) * 4]
        await loaded.more()
        yield loaded
        await loaded.more()
        is_over = True
        await asyncio.gather(*callers)
        assert loaded.most_running <= CAP
        await wait_until(loaded.agrees, SECONDS)


async def test_a_grant_on_any_master_wakes_the_waiter_of_another_process(
    cluster: RunningCluster,
) -> None:
    models = [ProviderModelKey(provider_name="p", model_id=f"m{n}") for n in range(12)]
    async with (
        forebay.connect(cluster.url, SETTINGS) as one,
        forebay.connect(cluster.url, SETTINGS) as other,
    ):
        for model in models:
            for requests in (one, other):
                await requests.register(model, "main", 1)
            chat = forebay.RequestResourceKey(provider_model=model)
            held = await one.acquire(forebay.RequestAdmissionItem(resource=chat))
            waiting = asyncio.ensure_future(
                other.acquire(forebay.RequestAdmissionItem(resource=chat))
            )

            async def waits(chat: forebay.RequestResourceKey = chat) -> bool:
                return (await one.pressure.snapshot(chat)).waiters == 1

            await wait_until(waits, SECONDS)
            await one.release(held, forebay.SUCCESS)
            assert (await other.release(await waiting, forebay.SUCCESS)).released
        tags = {request_shard(model).tag.encode() for model in models}
        index = cluster.master_of(SHARDS_KEY)
        await wait_until(lambda: tags <= index.client.smembers(SHARDS_KEY), SECONDS)
    metas = [request_shard(model)["meta"] for model in models]
    assert len({cluster.master_of(key).port for key in metas}) == len(cluster.masters)


async def test_no_cap_is_exceeded_while_the_slot_moves_under_load(cluster: RunningCluster) -> None:
    async with load(cluster) as loaded:
        for _ in range(2):
            source = cluster.master_of(META)
            target = cluster.other_master(source)
            cluster.begin_move(META, source, target)
            while await asyncio.to_thread(cluster.carry_keys, META, source, target, 3):
                pass  # members ask meanwhile, and are told to try again
            cluster.end_move(META, source, target)
            await loaded.more()


async def test_idle_members_hear_that_their_slot_moved_and_stay_members(
    cluster: RunningCluster,
) -> None:
    async with (
        forebay.connect(cluster.url, SETTINGS) as one,
        forebay.connect(cluster.url, SETTINGS) as other,
    ):
        for requests in (one, other):
            await requests.register(MODEL, "main", 1)
        held = await one.acquire(item())
        waiting = asyncio.ensure_future(other.acquire(item()))
        target = cluster.other_master(cluster.master_of(META))
        cluster.move(META, target)

        def listeners() -> int:
            return len(target.client.execute_command("PUBSUB", "SHARDCHANNELS"))

        await wait_until(lambda: listeners() == 2, SECONDS)
        assert (await one.release(held, forebay.SUCCESS)).released
        assert (await other.release(await waiting, forebay.SUCCESS)).released


async def test_a_shards_time_does_not_leap_where_its_new_master_has_another_clock(
    cluster: RunningCluster,
) -> None:
    keys = request_shard(MODEL)
    async with await ServerConnection.open(cluster.url) as connection:
        node = await connection.place(keys).find()
        await node.libraries.ensure(node.patient, MEMBER_SCRIPTS)
        await call_join(node, keys, "one", None, 15.0)
        client = cluster.master_of(META).client
        now, last, *rest = client.hget(META, "record").split(b"|")
        an_hour_ago = b"%d" % (int(last) - HOUR_US)
        record = b"|".join([now, an_hour_ago, *rest])
        client.hset(META, mapping={"run_id": "another", "record": record})
        await call_join(node, keys, "other", None, 15.0)
        after = client.hget(META, "record").partition(b"|")[0]
    assert int(after) - int(now) < HOUR_US


@pytest.mark.parametrize(
    "command",
    ["shards", "snapshot", "who", "waiters", "audit", "doctor", "events", "top --json"],
)
async def test_operators_ask_all_nodes(cluster: RunningCluster, command: str) -> None:
    async with forebay.connect(cluster.url, SETTINGS) as requests:
        for model in (MODEL, OTHER):
            await requests.register(model, "main", 1)
        held = await requests.acquire(item())
        waiting = asyncio.ensure_future(requests.acquire(item()))
        index = cluster.master_of(SHARDS_KEY).client
        await wait_until(lambda: index.scard(SHARDS_KEY) == 2, SECONDS)
        words = [*command.split(), "--url", cluster.url]
        done = await asyncio.to_thread(CliRunner().invoke, cli, words)
        await requests.release(held, forebay.SUCCESS)
        await requests.release(await waiting, forebay.SUCCESS)
    assert done.exit_code in {0, 5}, done.output  # a server of tests persists nothing
    told = [node.port for node in cluster.masters] if command == "doctor" else ["p/m", "p/other"]
    assert [name for name in told if str(name) not in done.output] == []


async def test_no_cap_is_exceeded_after_a_master_died_under_load(cluster: RunningCluster) -> None:
    async with load(cluster) as loaded:
        master = cluster.master_of(META)
        replica = cluster.replica_of(master)
        await asyncio.to_thread(master.end)
        await wait_until(lambda: replica.is_master, SECONDS)
        await loaded.more()


async def test_a_pool_on_a_cluster_is_refused_with_what_to_use(started: RunningCluster) -> None:
    for use in (forebay.open_worker, forebay.create_pool):
        with pytest.raises(
            ConfigurationError, match=r"is a cluster.* outside cluster mode for pools: give its URL"
        ):
            await use(started.url)


async def test_one_node_of_a_cluster_is_answered_with_the_url_to_write(
    started: RunningCluster,
) -> None:
    node = started.url.rpartition(",")[2]
    with pytest.raises(ConfigurationError, match=rf"write redis\+cluster://{node}"):
        async with forebay.connect(f"redis://{node}"):
            pass


async def test_the_url_of_a_cluster_for_one_server_is_answered_with_the_url_to_write() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(b"-ERR This instance has cluster support disabled\r\n")
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConfigurationError, match="write redis://host:port"):
            async with forebay.connect(f"redis+cluster://{HOST}:{port}"):
                pass
