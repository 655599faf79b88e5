"""`forebay set-cap`, `set-limit`, `pause` and `open` on a server."""

from __future__ import annotations

import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.test_explain_command import MODEL, forebay
from tests.support_tasks import DONE, joined, task


async def test_an_operators_cap_is_set_and_taken_off(
    connection: ServerConnection, redis_url: str
) -> None:
    requests = AdaptiveRequestAdmissionController(connection)
    await requests.register(MODEL, "main", 8)
    pressure = RequestPressureSnapshotProvider(connection)
    for cap, in_force, override in (("3", 3, 3), ("9", 8, 9), ("none", 8, None)):
        shown = await forebay("set-cap", "p", "m", cap, "--url", redis_url)
        assert shown.output.startswith(f"p/m  cap now {in_force}, ")
        shard = await pressure.global_snapshot(MODEL)
        assert (shard.static_cap, shard.override_cap) == (in_force, override)
    for wrong in ("0", "x", "1.5"):
        shown = await forebay("set-cap", "p", "m", wrong, "--url", redis_url)
        assert isinstance(shown.exception, ConfigurationError)
    await requests.close()


async def test_a_limit_is_the_smallest_claim_and_the_command_says_so(
    connection: ServerConnection, redis_url: str
) -> None:
    async with joined(connection, "mail") as tasks:
        await tasks.set_limit("gpu", 4)
        for words, said in (
            (("2",), "pool mail: limit of gpu now 2"),
            (("9",), "pool mail: limit of gpu now 4, as another holder claims less"),
            (("none",), "pool mail: limit of gpu now 4"),
            (("6", "--holder", "pool"), "pool mail: limit of gpu now 6"),
        ):
            shown = await forebay("set-limit", "gpu", *words, "--pool", "mail", "--url", redis_url)
            assert (shown.exit_code, shown.output) == (0, f"{said}\n")
        assert (await tasks.view()).limits["gpu"] == 6
        for words in (("gpu", "1.5", "--pool", "mail"), ("gpu", "1", "--pool", "mial")):
            shown = await forebay("set-limit", *words, "--url", redis_url)
            assert isinstance(shown.exception, ConfigurationError)


async def test_a_limit_of_0_starts_nothing_and_explain_says_so(
    connection: ServerConnection, redis_url: str
) -> None:
    async with joined(connection, "mail") as tasks:
        await tasks.set_limit("gpu", 4)
        await tasks.queue.submit(task("before", gpu=1))
        shown = await forebay("set-limit", "gpu", "0", "--pool", "mail", "--url", redis_url)
        assert shown.output == "pool mail: limit of gpu now 0\n"
        await tasks.queue.submit(task("after", gpu=2))
        assert not (await tasks.admit(9)).leases

        shown = await forebay("explain", "after", "--url", redis_url)
        said = " ".join(shown.output.split())
        assert "It asks for 2 of gpu, and the limit is 0 (set by operator): nothing that" in said
        await tasks.drop_limit("gpu")
        shown = await forebay("set-limit", "gpu", "0", "--pool", "mail", "--url", redis_url)
        assert shown.output == "pool mail: limit of gpu now 0\n"

        shown = await forebay("set-limit", "gpu", "3", "--pool", "mail", "--url", redis_url)
        leases = (await tasks.admit(9)).leases
        assert [lease.item.task_id for lease in leases] == ["before", "after"]
        for lease in leases:
            await tasks.finish(lease, DONE)
        shown = await forebay("set-limit", "gpu", "none", "--pool", "mail", "--url", redis_url)
        assert shown.output == "pool mail: limit of gpu now none\n"


@pytest.mark.parametrize("words", [["mail"], ["--pool", "mail"]])
async def test_a_pool_is_named_by_argument_or_option(
    connection: ServerConnection, redis_url: str, words: list[str]
) -> None:
    async with joined(connection, "mail") as tasks:
        await tasks.set_limit("gpu", 4)
        for command, state in (("pause", "paused"), ("open", "open")):
            shown = await forebay(command, *words, "--url", redis_url)
            assert shown.output.startswith(f"pool mail is {state}: ")
