"""`forebay runs`, `resume` and `cancel` with names of nothing: refused in words, no key made."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server_connection import ServerConnection
from tests.support_tasks import joined

POOL = "mail"


async def forebay(url: str, *arguments: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it says of errors."""
    command = [sys.executable, "-m", "forebay", *arguments, "--url", url]
    ran = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("command", [["runs"], ["resume", "run"], ["cancel", "run"]])
async def test_runs_of_a_pool_that_nobody_made_are_an_error_that_lists_the_pools(
    connection: ServerConnection, redis_url: str, command: list[str]
) -> None:
    async with joined(connection, POOL) as tasks:
        await tasks.set_limit("gpu", 1)
    code, said = await forebay(redis_url, *command, "--pool", "mial")
    assert code == 1
    assert said.startswith("Error: no pool 'mial' exists on the server at ")
    assert f"expected one of {POOL};" in said
    assert not await connection.client.exists(pool_shard("mial")["meta"])


@pytest.mark.parametrize("command", ["resume", "cancel"])
@pytest.mark.parametrize("run", ["", "\udcff", "no/such {run}"])
async def test_run_that_nobody_began_is_refused_by_its_name(
    connection: ServerConnection, redis_url: str, command: str, run: str
) -> None:
    async with joined(connection, POOL) as tasks:
        await tasks.set_limit("gpu", 1)
    code, said = await forebay(redis_url, command, run, "--pool", POOL)
    assert code == 1
    assert said.startswith(("Error: run must be", "Error: run ", f"Error: pool {POOL} has no run"))
    assert repr(run) in said
    assert "not expected" not in said
    assert "has no run" not in said or "until its output is written" in said
    assert len(said.splitlines()) == 1
