"""What an operator does to task pools, and to those that do not exist (spec 07, *Command line*)."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Any

import pytest

from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.operating import reset_window, set_override_cap
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.operating import set_pool_state
from tests.contract.test_request_operating_calls import MODEL, RESOURCE
from tests.support_runs import forebay
from tests.support_scene import soon
from tests.support_tasks import joined

COMMANDS = {"pause": "paused", "resume-pool": "open", "drain": "draining"}


async def everything(coordinator: Coordinator) -> dict[bytes, bytes]:
    """Return every key with its whole value."""
    keys = await coordinator.client.keys("*")
    return {key: await coordinator.client.dump(key) for key in sorted(keys)}


@pytest.fixture
async def made(coordinator: Coordinator) -> Coordinator:
    """Two pools that somebody made, and one whose keys are gone but for its entry in the index."""
    for pool in ("a b", "mail"):
        async with joined(coordinator, pool) as tasks:
            await tasks.set_limit("gpu", 1)
    await coordinator.client.sadd("fb:shards", "pool:gone", "rq:of/requests", b"pool:\xff")
    return coordinator


@pytest.mark.parametrize("state", ["paused", "draining", "open"])
async def test_pool_that_exists_is_set_and_shown(made: Coordinator, state: Any) -> None:
    found = await set_pool_state(made, "mail", state)
    assert (found.exists, found.state) == (True, state)


@pytest.mark.parametrize("pool", ["mial", "mail ", "a%20b", "gone", "MAIL"])
async def test_pool_that_nobody_made_is_an_error_that_lists_the_pools(
    made: Coordinator, pool: str
) -> None:
    before = await everything(made)
    with pytest.raises(ConfigurationError, match=r"expected one of a b, mail;") as refused:
        await set_pool_state(made, pool, "paused")
    assert repr(pool) in str(refused.value)
    assert f"forebay worker --pool {shlex.quote(pool)}." in str(refused.value)
    assert await everything(made) == before


async def test_server_without_a_pool_says_so_and_gets_no_key(coordinator: Coordinator) -> None:
    with pytest.raises(ConfigurationError, match="it has no pool at all yet"):
        await set_pool_state(coordinator, "mail", "paused")
    assert await everything(coordinator) == {}


async def test_list_of_many_pools_is_cut_short(coordinator: Coordinator) -> None:
    for number in range(15):
        async with joined(coordinator, f"p{number:02d}") as tasks:
            await tasks.set_limit("gpu", 1)
    with pytest.raises(ConfigurationError, match="p10, p11 and 3 more; correct"):
        await set_pool_state(coordinator, "mail", "paused")


@pytest.mark.parametrize("pool", ["", "x" * 513, "\udc80"])
async def test_name_that_no_pool_can_have_is_refused(coordinator: Coordinator, pool: str) -> None:
    with pytest.raises(ConfigurationError, match="pool"):
        await set_pool_state(coordinator, pool, "paused")
    assert await everything(coordinator) == {}


async def test_server_that_went_away_is_a_typed_error(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as own:
        async with await Coordinator.open(own.url) as coordinator:
            own.kill()
            with pytest.raises(CoordinatorUnavailable):
                await coordinator.live_shards("pool:")


@pytest.mark.parametrize("command", COMMANDS)
async def test_command_for_an_unknown_pool_is_one_sentence_and_makes_no_key(
    made: Coordinator, redis_url: str, tmp_path: Path, command: str
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
    made: Coordinator, redis_url: str, tmp_path: Path, command: str
) -> None:
    words = (command, "--pool", "a b", "--url", redis_url)
    done = await asyncio.to_thread(forebay, *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"pool a b is {COMMANDS[command]}: 0 running")


# -- the same for provider/models


async def test_provider_model_that_nobody_used_is_an_error_that_lists_the_others(
    coordinator: Coordinator,
) -> None:
    controller = AdaptiveRequestAdmissionController(coordinator)
    other = type(MODEL)(provider_name="local", model_id="mock small")
    await controller.register(other, "main", 1)
    before = await everything(coordinator)
    for operation in (reset_window(coordinator, RESOURCE), set_override_cap(coordinator, MODEL, 1)):
        with pytest.raises(ConfigurationError, match="expected one of local/mock small; correct"):
            await operation
    assert await everything(coordinator) == before
    await controller.close()


async def test_server_without_a_provider_model_says_so(coordinator: Coordinator) -> None:
    with pytest.raises(ConfigurationError, match="no other was used there either"):
        await reset_window(coordinator, RESOURCE)


async def test_what_others_wrote_into_the_index_spoils_no_snapshot(
    coordinator: Coordinator,
) -> None:
    strange = ("rq:", "rq:x", "rq:/y", b"rq:\xff/\xff", "other", "rq:" + "x" * 600 + "/m")
    await coordinator.client.sadd("fb:shards", *strange)
    controller = AdaptiveRequestAdmissionController(coordinator)
    await controller.register(MODEL, "main", 1)
    shown = await RequestPressureSnapshotProvider(coordinator).global_snapshots()
    assert MODEL in shown
    await controller.close()


async def test_a_change_that_failed_waits_for_no_second_deadline(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise CoordinatorUnavailable("away")

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    async with joined(coordinator, "mail") as tasks:
        await tasks.set_limit("gpu", 1)
        with monkeypatch.context() as patched:
            patched.setattr(TaskAdmissionController, "set_state", fails)
            patched.setattr(TaskAdmissionController, "close", never)
            with pytest.raises(CoordinatorUnavailable):
                await soon(set_pool_state(coordinator, "mail", "paused"))
