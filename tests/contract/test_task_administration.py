"""What an operator does to task pools, and to those that do not exist.

Rules: design 07, *Command line*.
"""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Any

import pytest

from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable
from forebay.coordinator.requests.administration import reset_window, set_override_cap
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import set_pool_state
from forebay.coordinator.tasks.controller import TaskAdmissionController
from tests.contract.test_request_administration_calls import MODEL, RESOURCE
from tests.support_runs import forebay
from tests.support_scene import soon
from tests.support_tasks import joined

COMMANDS = {"pause": "paused", "resume-pool": "open", "drain": "draining"}


async def everything(connection: ServerConnection) -> dict[bytes, bytes]:
    """Return every key with its whole value."""
    keys = await connection.client.keys("*")
    return {key: await connection.client.dump(key) for key in sorted(keys)}


@pytest.fixture
async def made(connection: ServerConnection) -> ServerConnection:
    """Two pools that somebody made, and one whose keys are gone but for its entry in the index."""
    for pool in ("a b", "mail"):
        async with joined(connection, pool) as tasks:
            await tasks.set_limit("gpu", 1)
    await connection.client.sadd("fb:shards", "pool:gone", "rq:of/requests", b"pool:\xff")
    return connection


@pytest.mark.parametrize("state", ["paused", "draining", "open"])
async def test_pool_that_exists_is_set_and_shown(made: ServerConnection, state: Any) -> None:
    found = await set_pool_state(made, "mail", state)
    assert (found.exists, found.state) == (True, state)


@pytest.mark.parametrize("pool", ["mial", "mail ", "a%20b", "gone", "MAIL"])
async def test_pool_that_nobody_made_is_an_error_that_lists_the_pools(
    made: ServerConnection, pool: str
) -> None:
    before = await everything(made)
    with pytest.raises(ConfigurationError, match=r"expected one of a b, mail;") as refused:
        await set_pool_state(made, pool, "paused")
    assert repr(pool) in str(refused.value)
    assert f"forebay worker --pool {shlex.quote(pool)}." in str(refused.value)
    assert await everything(made) == before


async def test_server_without_a_pool_says_so_and_gets_no_key(connection: ServerConnection) -> None:
    with pytest.raises(ConfigurationError, match="it has no pool at all yet"):
        await set_pool_state(connection, "mail", "paused")
    assert await everything(connection) == {}


async def test_list_of_many_pools_is_cut_short(connection: ServerConnection) -> None:
    for number in range(15):
        async with joined(connection, f"p{number:02d}") as tasks:
            await tasks.set_limit("gpu", 1)
    with pytest.raises(ConfigurationError, match="p10, p11 and 3 more; correct"):
        await set_pool_state(connection, "mail", "paused")


@pytest.mark.parametrize("pool", ["", "x" * 513, "\udc80"])
async def test_name_that_no_pool_can_have_is_refused(
    connection: ServerConnection, pool: str
) -> None:
    with pytest.raises(ConfigurationError, match="pool"):
        await set_pool_state(connection, pool, "paused")
    assert await everything(connection) == {}


async def test_server_that_went_away_is_a_typed_error(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as own:
        async with await ServerConnection.open(own.url) as connection:
            own.kill()
            with pytest.raises(CoordinatorUnavailable):
                await connection.live_shards("pool:")


@pytest.mark.parametrize("command", COMMANDS)
async def test_command_for_an_unknown_pool_is_one_sentence_and_makes_no_key(
    made: ServerConnection, redis_url: str, tmp_path: Path, command: str
) -> None:
    before = await everything(made)
    words = (command, "--pool", "mial", "--url", redis_url)
    done = await asyncio.to_thread(forebay, *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: no pool 'mial' exists on the server at ")
    assert "expected one of a b, mail;" in line
    assert await everything(made) == before


@pytest.mark.parametrize("command", COMMANDS)
async def test_command_for_a_known_pool_says_its_new_state(
    made: ServerConnection, redis_url: str, tmp_path: Path, command: str
) -> None:
    words = (command, "--pool", "a b", "--url", redis_url)
    done = await asyncio.to_thread(forebay, *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"pool a b is {COMMANDS[command]}: 0 running")


# -- the same for provider/models


async def test_provider_model_that_nobody_used_is_an_error_that_lists_the_others(
    connection: ServerConnection,
) -> None:
    controller = AdaptiveRequestAdmissionController(connection)
    other = type(MODEL)(provider_name="local", model_id="mock small")
    await controller.register(other, "main", 1)
    before = await everything(connection)
    for operation in (reset_window(connection, RESOURCE), set_override_cap(connection, MODEL, 1)):
        with pytest.raises(ConfigurationError, match="expected one of local/mock small; correct"):
            await operation
    assert await everything(connection) == before
    await controller.close()


async def test_server_without_a_provider_model_says_so(connection: ServerConnection) -> None:
    with pytest.raises(ConfigurationError, match="no other was used there either"):
        await reset_window(connection, RESOURCE)


async def test_what_others_wrote_into_the_index_spoils_no_snapshot(
    connection: ServerConnection,
) -> None:
    strange = ("rq:", "rq:x", "rq:/y", b"rq:\xff/\xff", "other", "rq:" + "x" * 600 + "/m")
    await connection.client.sadd("fb:shards", *strange)
    controller = AdaptiveRequestAdmissionController(connection)
    await controller.register(MODEL, "main", 1)
    shown = await RequestPressureSnapshotProvider(connection).global_snapshots()
    assert MODEL in shown
    await controller.close()


async def test_a_change_that_failed_waits_for_no_second_deadline(
    connection: ServerConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise CoordinatorUnavailable("away")

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    async with joined(connection, "mail") as tasks:
        await tasks.set_limit("gpu", 1)
        with monkeypatch.context() as patched:
            patched.setattr(TaskAdmissionController, "set_state", fails)
            patched.setattr(TaskAdmissionController, "close", never)
            with pytest.raises(CoordinatorUnavailable):
                await soon(set_pool_state(connection, "mail", "paused"))
