"""What an operator reads fits a terminal, and nothing is cut (issue 12.6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis

from forebay.commands.lines import WIDTH
from forebay.commands.snapshot import snapshot_lines
from forebay.contracts.identity import ProviderModelKey, RequestDomain, RequestGroupSpec
from forebay.contracts.identity import RequestResourceKey as Resource
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.quotas import QuotaBudget
from forebay.contracts.requests import RequestAdmissionItem
from forebay.contracts.settings import RequestAdmissionConfig, RequestQuotas
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.pool_under_clock import GPU, SECOND_US, Pool
from tests.contract.run_plans import plan
from tests.contract.shard_under_clock import SERVERS
from tests.support_scripts import CHAT, FRAGMENTS, Acquire, Register, ScriptedShard

LENGTHS = (6, 60, 80, 300)
REDIS_CLI_WIDTH = 100
EVERY_QUOTA = RequestAdmissionConfig(
    quotas=RequestQuotas(
        requests_per_minute=10**6,
        tokens_per_minute=10**9,
        requests_per_day=10**9,
        tokens_per_day=10**12,
        bursts={QuotaBudget.TOKENS_PER_DAY: 10**12},
    )
)


@pytest.fixture(params=SERVERS)
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "fakeredis":
        with fakeredis.FakeRedis(version=(7, 0)) as client:
            yield client
    else:
        with redis.Redis.from_url(request.getfixturevalue("redis_url")) as client:
            yield client


def name(of: str, length: int) -> str:
    """Return a name of so many letters, which are told apart by where they stand."""
    return (of + "".join(str(i % 10) for i in range(length)))[:length]


def check(lines: list[str], *names: str, width: int = REDIS_CLI_WIDTH) -> None:
    """Check that lines fit, and that each name stands in them whole, perhaps over several."""
    assert [line for line in lines if len(line) > width] == []
    together = "".join(line.strip() for line in lines)
    assert [name for name in names if name not in together] == []


def look(shard: ScriptedShard, question: str) -> list[str]:
    """Return the answer to an operator's question about a shard."""
    reply = shard.run("requests/look", shard.keys.all, [question, 100])
    return [line.decode() for line in reply]  # type: ignore[attr-defined]


@pytest.mark.parametrize("length", LENGTHS)
def test_show_of_a_request_shard_fits(client: Any, length: int) -> None:
    model, alias, group, member = (name(of, length) for of in "uagm")
    key = ProviderModelKey(provider_name="provider", model_id=model)
    shard = ScriptedShard(client, FRAGMENTS, key)
    shard.open(1, member, config=EVERY_QUOTA)
    shard.batch(member, Register(alias, 10**9))
    for domain in RequestDomain:
        shard.batch(member, Acquire(f"first {domain}".replace(" ", "-"), domain))
        shard.batch(member, Acquire(f"{domain}-waits", domain, group))
    lines = look(shard, "show")
    check(lines, model, alias, group, member)
    assert {"window", "granted", "waiting", "leases", "burst"} <= set(" ".join(lines).split())
    check(look(shard, "who"), member)
    check(look(shard, "waiters"), member, group, "chat-waits")
    check(look(shard, "shares"), group)
    check(look(shard, "events"), member, alias)
    shard.close()


@pytest.mark.parametrize("length", LENGTHS)
def test_show_of_a_pool_fits(client: Any, length: int) -> None:
    pool_name, group, member, run = (name(of, length) for of in "pgmr")
    pool = Pool(client, pool_name)
    pool.open(member, gpu=1)
    for i in range(3):
        pool.submit(f"{i}{group}", group, GPU, by=member)
    pool.submit("later", group, GPU, by=member, delay_us=SECOND_US)
    pool.ask(member, "run_submit", run, plan(records=6), "{}")
    pool.admit(1, by=member)
    pool.pass_time(1)
    pool.admit(1, by=member)
    check(pool.show(), pool_name, group, member, run, "request:p/m")
    check(pool.look("who"), member, group)
    check(pool.look("waiters"), group)
    check(pool.look("shares"), group)
    check(pool.look("events"), member)
    pool.close()


@pytest.mark.parametrize("length", LENGTHS)
async def test_snapshot_fits(redis_url: str, length: int) -> None:
    key = ProviderModelKey(provider_name="provider", model_id=name("u", length))
    async with await ServerConnection.open(redis_url) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(key, name("a", length), 10**9, config=EVERY_QUOTA)
        item = RequestAdmissionItem(
            resource=Resource(provider_model=key, domain=CHAT),
            group=RequestGroupSpec(key=name("g", length)),
        )
        lease = await controller.acquire(item)
        lines = snapshot_lines(key, await controller.pressure.global_snapshot(key))
        check(lines, str(key), width=WIDTH)
        await controller.release(lease, SUCCESS)
        await controller.close()
