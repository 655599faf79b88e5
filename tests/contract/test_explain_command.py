"""`forebay explain` on a server: what bears a name, in any shard, and what bears none."""

from __future__ import annotations

import asyncio
import json

from click.testing import CliRunner, Result

from forebay.cli import cli
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestGroupSpec, RequestResourceKey
from forebay.contracts.requests import RequestAdmissionItem
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server_connection import ServerConnection
from tests.support_tasks import joined, task

MODEL = ProviderModelKey(provider_name="p", model_id="m")
ITEM = RequestAdmissionItem(
    resource=RequestResourceKey(provider_model=MODEL), group=RequestGroupSpec(key="tenant")
)


async def forebay(*words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cli, words)


async def test_each_name_is_explained_where_it_is(
    connection: ServerConnection, redis_url: str
) -> None:
    requests = AdaptiveRequestAdmissionController(connection)
    async with joined(connection, "mail") as tasks:
        await tasks.set_limit("gpu", 1)
        await tasks.queue.submit(task("t 1", gpu=1))
        await requests.register(MODEL, "main", 1)
        lease = await requests.acquire(ITEM)
        for name, begins in {
            "t 1": "task t 1  in pool:mail\n  - It is the 1st of 1 task in line of group local/g",
            "mail": "pool mail  in pool:mail\n  - The pool is open. 1 task waits",
            "p/m": "provider/model p/m  in rq:p/m\n  - Cap 1, 1 in flight, 0 wait, 1 member",
            "tenant": "group tenant  in rq:p/m\n  - It has weight 1; calls in flight: 1 in chat",
            lease.lease_id: f"lease {lease.lease_id}  in rq:p/m\n  - Member ",
        }.items():
            shown = await forebay("explain", name, "--url", redis_url)
            assert (shown.exit_code, shown.output[: len(begins)]) == (0, begins)
            assert max(map(len, shown.output.splitlines())) <= 80

        shown = await forebay("explain", "t 1", "--json", "--url", redis_url)
        (found,) = json.loads(shown.output)["rows"]
        assert found["row"] == "explanation"
        assert (found["kind"], found["shard"]) == ("task", "pool:mail")
        assert found["reasons"][0]["code"] == "in_line"
        await tasks.queue.discard("t 1")
        await requests.close()

    shown = await forebay("explain", "nothing", "--url", redis_url)
    assert isinstance(shown.exception, ConfigurationError)
    assert "is called 'nothing', expected a task, waiter" in str(shown.exception)


async def test_a_shard_that_cannot_be_read_hides_no_other_and_is_named(
    connection: ServerConnection, redis_url: str
) -> None:
    async with joined(connection, "mail") as tasks:
        await tasks.queue.submit(task("t1"))
        await connection.client.sadd("fb:shards", "rq:bad/m", "pool:odd", "x:y")
        await connection.client.set("fb:{rq:bad/m}:meta", "garbage")
        await connection.client.hset("fb:{pool:odd}:meta", "schema", "99")
        shown = await forebay("explain", "mail", "--url", redis_url)
        assert shown.exit_code == 1
        assert shown.output.startswith("pool mail  in pool:mail\n  - The pool is open.")
        for said in ("rq:bad/m: not explained: fb:{rq:bad/m}:meta", "x:y: not explained"):
            assert said in " ".join(shown.output.split())
        shown = await forebay("explain", "mial", "--url", redis_url)
        assert shown.exit_code == 1, "one of the others may have it"
        await connection.client.delete("fb:{rq:bad/m}:meta", "fb:{pool:odd}:meta")
        await connection.client.srem("fb:shards", "rq:bad/m", "pool:odd", "x:y")
        shown = await forebay("explain", "mial", "--url", redis_url)
        assert "did you mean mail" in str(shown.exception)
        await tasks.queue.discard("t1")
