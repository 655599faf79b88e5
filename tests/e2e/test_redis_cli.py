"""An operator with nothing but ``redis-cli``: the documented lines, typed as they stand."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from forebay.contracts.identity import ProviderModelKey, RequestGroupSpec, RequestResourceKey
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionItem
from forebay.coordinator.keys import request_shard
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.scripts.operator_library import COMMANDS, publish_functions
from forebay.coordinator.server.address import UnixAddress
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.rights import READER_RULES
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.support import wait_until
from tests.support_redis_cli import find_redis_cli

MOCK_LARGE = ProviderModelKey(provider_name="local", model_id="mock-large")
CHAT = RequestResourceKey(provider_model=MOCK_LARGE)


class Operator:
    """A shell on whose PATH ``redis-cli`` talks to the test's server, as a reader."""

    def __init__(self, folder: Path, url: str) -> None:
        program = shlex.quote(str(find_redis_cli()))
        address = parse_url(url)
        assert isinstance(address, UnixAddress)
        shim = folder / "redis-cli"
        shim.write_text(
            f"#!/bin/sh\nexec {program} -s {shlex.quote(address.path)}"
            ' --user looks --pass pw --no-auth-warning "$@"\n'
        )
        shim.chmod(0o755)
        self._environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}

    def start(self, line: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["sh", "-c", line],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def ask(self, what: str) -> list[str]:
        """Type the documented line that answers a question."""
        return await self.type(COMMANDS[what])

    async def type(self, line: str) -> list[str]:
        output, _ = await asyncio.to_thread(self.start(line).communicate, timeout=30)
        return output.splitlines()


@pytest.fixture
def operator(tmp_path: Path, redis_url: str) -> Iterator[Operator]:
    with open_sync(parse_url(redis_url)) as admin:
        admin.execute_command("ACL", "SETUSER", "looks", "reset", "on", ">pw", *READER_RULES)
        yield Operator(tmp_path, redis_url)
        admin.execute_command("ACL", "DELUSER", "looks")


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[ServerConnection]:
    async with await ServerConnection.open(redis_url) as connection:
        await publish_functions(connection.client)
        yield connection


@pytest.fixture
async def controller(
    connection: ServerConnection,
) -> AsyncIterator[AdaptiveRequestAdmissionController]:
    controller = AdaptiveRequestAdmissionController(connection)
    await controller.register(MOCK_LARGE, "main", 2)
    yield controller
    await controller.close()


async def test_each_documented_line_shows_the_truth(
    operator: Operator, connection: ServerConnection, controller: AdaptiveRequestAdmissionController
) -> None:
    for _ in range(2):
        await controller.acquire(RequestAdmissionItem(resource=CHAT))
    group = RequestGroupSpec(key="run-7", weight=3)
    waiter = asyncio.create_task(
        controller.acquire(RequestAdmissionItem(resource=CHAT, group=group))
    )
    waiters = request_shard(MOCK_LARGE)["waiters"]
    await wait_until(lambda: _is_there(connection, waiters))

    listed = await operator.ask("which shards and pools there are")
    assert "rq:local/mock-large        1       2        1" in listed[1]

    shown = await operator.ask("where a window is, what moved it last, what comes next")
    rows = [line.split() for line in shown]
    assert rows[0][0] == "local/mock-large"
    assert "static cap 2, override -, in flight 2, leases 2, waiters 1, members 1" in shown
    text = " ".join(" ".join(shown).split())
    assert "domain: chat window 2 effective max 2 in flight 2 waiters 1 cooldown -" in text
    assert ["run-7", "3", "1"] in [[row[0], row[1], row[-1]] for row in rows if len(row) == 4]

    assert "leases 2, members 1" in await operator.ask("who holds leases, and how long")
    waiting = await operator.ask("who waits, in what order, since when")
    assert waiting[0].startswith("chat: 1 wait, in flight 2 of 2")
    shares = await operator.ask("which group floods, what each got against its weight")
    assert ["run-7", "1", "0", "0", "%", "75", "%", "3"] in [line.split() for line in shares]
    assert (await operator.ask("whether anything is leaked: of every shard"))[0] == "ok"
    events = await operator.ask("the last events of a shard")
    assert "request_effective_cap_changed" in events[0]
    assert (await operator.ask("whether the server is sound"))[0].startswith("ok     version")

    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)


async def _is_there(connection: ServerConnection, key: str) -> bool:
    return bool(await connection.client.exists(key))


async def test_audit_says_what_differs(
    operator: Operator, connection: ServerConnection, controller: AdaptiveRequestAdmissionController
) -> None:
    await controller.acquire(RequestAdmissionItem(resource=CHAT))
    meta, window = request_shard(MOCK_LARGE)["meta"], "window_chat"
    stored = await connection.client.hget(meta, window)
    await connection.client.hset(meta, window, re.sub(rb"^1\|", b"2|", stored))

    said = await operator.ask("whether anything is leaked: of every shard")
    await connection.client.hset(meta, window, stored)

    assert said[:2] == ["1 of 1 shards differ", "rq:local/mock-large  2 differences"]
    assert f"{meta} in_flight of chat: expected 1, found 2" in said


async def test_the_next_event_is_told_when_it_happens(
    operator: Operator, connection: ServerConnection, controller: AdaptiveRequestAdmissionController
) -> None:
    async def is_blocked() -> bool:
        return bool((await connection.client.info("clients"))["blocked_clients"])

    following = operator.start(COMMANDS["wait for the next event"])
    await wait_until(is_blocked)
    lease = await controller.acquire(RequestAdmissionItem(resource=CHAT))
    await controller.register(MOCK_LARGE, "main", 1)
    output, _ = await asyncio.to_thread(following.communicate, timeout=30)

    assert "request_effective_cap_changed" in output.splitlines()
    assert (await controller.release(lease, SUCCESS)).released


async def test_the_lines_can_be_read_off_the_server_itself(
    operator: Operator, connection: ServerConnection
) -> None:
    told = await operator.type("redis-cli --raw FCALL_RO fb_help 0")

    assert set(COMMANDS.values()) <= set(told)


async def test_a_line_typed_for_a_shard_that_nobody_used_says_so_and_leaves_no_key(
    operator: Operator, connection: ServerConnection
) -> None:
    shown = await operator.ask("where a window is, what moved it last, what comes next")

    assert shown == ["local/mock-large  nobody has used this shard; list those in use"]
    assert await connection.client.keys("*") == []
