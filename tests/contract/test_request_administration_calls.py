"""An operator changes caps and windows from Python and from the command line.

Rules: design 03; design 07, *Command line*.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable, SchemaMismatch
from forebay.contracts.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from forebay.contracts.outcomes import RequestOutcomeKind, RequestReleaseOutcome
from forebay.contracts.requests import RequestAdmissionItem
from forebay.coordinator.requests.administration import (
    reset_cooldown,
    reset_window,
    set_override_cap,
)
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection
from tests.support import wait_until
from tests.support_runs import forebay
from tests.support_scripts import AIMD

LIMITED_FOR_A_MINUTE = RequestReleaseOutcome(
    kind=RequestOutcomeKind.RATE_LIMITED, retry_after_seconds=60.0
)
MODEL = ProviderModelKey(provider_name="local", model_id="mock-large")
RESOURCE = RequestResourceKey(provider_model=MODEL)


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[ServerConnection]:
    async with await ServerConnection.open(redis_url) as connection:
        yield connection


@pytest.fixture
async def controller(
    connection: ServerConnection,
) -> AsyncIterator[AdaptiveRequestAdmissionController]:
    """A provider/model with a cap of 4 whose window was cut to 3, cooling down for a minute."""
    controller = AdaptiveRequestAdmissionController(connection)
    await controller.register(MODEL, "main", 4)
    lease = await controller.acquire(RequestAdmissionItem(resource=RESOURCE))
    await controller.release(lease, LIMITED_FOR_A_MINUTE)
    yield controller
    await controller.close()


async def test_denial_says_when_asking_again_may_help(
    controller: AdaptiveRequestAdmissionController,
) -> None:
    denied = await controller.try_acquire(RequestAdmissionItem(resource=RESOURCE))
    assert getattr(denied, "reason", "granted") == "cooldown"
    assert 0 < getattr(denied, "retry_after_seconds", 0) <= 60


async def test_operator_needs_no_membership(
    controller: AdaptiveRequestAdmissionController, connection: ServerConnection
) -> None:
    seen = RequestPressureSnapshotProvider(connection)
    assert await reset_window(connection, RESOURCE) == 4
    assert 0 < await reset_cooldown(connection, RESOURCE) <= 60
    assert await reset_cooldown(connection, RESOURCE) == 0.0
    assert await set_override_cap(connection, MODEL, 2) == 2
    shard = await seen.global_snapshot(MODEL)
    chat = shard.domains[RequestDomain.CHAT]
    assert (shard.override_cap, shard.static_cap, shard.member_count) == (2, 2, 1)
    assert (chat.current_limit, chat.blocked_until, chat.rate_limit_ceiling) == (2, None, None)
    assert await set_override_cap(connection, MODEL, None) == 4
    assert (await seen.audit(MODEL)).ok
    await controller.close()
    assert await set_override_cap(connection, MODEL, 2) == 0
    assert (await seen.audit(MODEL)).ok


async def test_all_that_an_operation_makes_possible_is_granted(
    connection: ServerConnection,
) -> None:
    controller = AdaptiveRequestAdmissionController(connection)
    await controller.register(MODEL, "main", 150, AIMD)
    await set_override_cap(connection, MODEL, 1)
    shard = RequestPressureSnapshotProvider(connection)
    items = [RequestAdmissionItem(resource=RESOURCE) for _ in range(150)]
    asked = [controller.acquire(item) for item in items]
    waiting = asyncio.gather(*asked)

    async def all_wait() -> bool:
        return (await shard.global_snapshot(MODEL)).waiters == 149

    await wait_until(all_wait)
    await set_override_cap(connection, MODEL, None)
    assert (await shard.global_snapshot(MODEL)).waiters == 0
    assert len(await waiting) == 150
    await controller.close()


@pytest.mark.parametrize("cap", [0, -1, 10**9 + 1, 1.5, "3"])
async def test_wrong_cap_is_a_typed_error(
    controller: AdaptiveRequestAdmissionController, connection: ServerConnection, cap: Any
) -> None:
    with pytest.raises(ConfigurationError, match="expected a whole number from 1"):
        await set_override_cap(connection, MODEL, cap)


async def test_unknown_provider_model_is_a_typed_error_and_leaves_no_key(
    connection: ServerConnection,
) -> None:
    with pytest.raises(ConfigurationError, match="local/mock-large was never used"):
        await reset_window(connection, RESOURCE)
    assert await connection.client.keys("*") == []


async def test_shard_of_another_version_is_a_typed_error(
    controller: AdaptiveRequestAdmissionController, connection: ServerConnection
) -> None:
    meta = "fb:{rq:local/mock-large}:meta"
    await connection.client.hset(meta, "schema", "0")
    with pytest.raises(SchemaMismatch):
        await reset_window(connection, RESOURCE)


async def test_server_that_went_away_is_a_typed_error(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as own:
        async with await ServerConnection.open(own.url) as connection:
            own.kill()
            with pytest.raises(CoordinatorUnavailable):
                await reset_cooldown(connection, RESOURCE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], ["window now 4", "cooldown ended "]),
        (["--window"], ["window now 4"]),
        (["--cooldown"], ["cooldown ended "]),
        (["--domain", "image"], ["window never used, nothing to reset", "cooldown none"]),
    ],
)
async def test_reset_command_says_what_it_did(
    controller: AdaptiveRequestAdmissionController,
    redis_url: str,
    tmp_path: Path,
    options: list[str],
    said: list[str],
) -> None:
    words = ("reset", "local", "mock-large", "--url", redis_url, *options)
    done = await asyncio.to_thread(forebay, *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for line, part in zip(done.stdout.splitlines(), said, strict=True):
        assert part in line


async def test_reset_of_what_nobody_used_is_one_sentence(redis_url: str, tmp_path: Path) -> None:
    done = forebay("reset", "local", "typo", "--url", redis_url, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: local/typo was never used on the server at ")
    assert len(done.stderr.splitlines()) == 1
