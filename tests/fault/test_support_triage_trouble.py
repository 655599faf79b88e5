"""The example in trouble, with real processes: counts add up, and calls are paid for once.

What is paid for is what the mock provider's log counts: calls that it served (200), and those whose
caller left meanwhile (499). Two calls a record are needed; a kill may cost those in flight besides.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.coordinator.server.address import EmbeddedAddress
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.mock_provider.log import RequestRecord
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from forebay.runtime import start_worker, stop_workers
from tests.support import wait_until
from tests.support_runs import (
    COLUMNS,
    WORKFLOW,
    audits,
    forebay,
    provider_address,
    read_records,
    remains,
    seed_rows,
    start_forebay,
)

OUTPUT = "out/support_triage.jsonl"
RECORDS = 240
NEEDED = 2 * RECORDS
AT_ONCE = 16
UNDER_WAY = 32
"""Cells that ask a model at once, by the workflow: a kill may cost each of them its call."""
KEY = "right-key"


@pytest.fixture
def provider() -> Iterator[MockProviderServer]:
    truth = ProviderTruth(concurrency=AT_ONCE, latency_median_seconds=0.2)
    with MockProviderServer(truth, seed=7) as provider:
        yield provider


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "data") as server:
        yield server


def statuses(provider: MockProviderServer) -> Counter[int]:
    """How many calls the provider's log holds, by status."""
    log = [record for _index, record in provider.state.log.since(0)]
    return Counter(record.status for record in log if isinstance(record, RequestRecord))


def has_written_some(folder: Path) -> bool:
    return any((folder / "out").glob("*.parts/*.dropped.jsonl"))


async def is_whole(folder: Path, provider: MockProviderServer, *, twice: int) -> None:
    """Check the output, and that at most ``twice`` calls were paid for twice."""
    records = await asyncio.to_thread(read_records, folder / OUTPUT)
    assert [row["ticket_id"] for row in records] == [row["ticket_id"] for row in seed_rows()]
    assert all(list(row) == COLUMNS for row in records)
    await wait_until(lambda: provider.state.counters.in_flight == 0)
    paid = statuses(provider)
    assert set(paid) <= {200, 429, 499}
    assert NEEDED <= paid[200] + paid[499] <= NEEDED + twice


# -- a key that is wrong


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[tuple[MockProviderServer, MockProviderServer]]:
    """The providers alpha and beta, which want a key, and the example's workflow on both."""
    with MockProviderServer(api_key=KEY) as alpha, MockProviderServer(api_key=KEY) as beta:
        text = WORKFLOW.read_text()
        head, _, rest = text.partition("[providers.local]")
        _address, _, rest = rest.partition("# Two aliases")
        first, _, second = rest.partition("[models.judge]")
        providers = "".join(
            f'[providers.{name}]\nbase_url = "{one.base_url}"\napi_key_env = "{name.upper()}_KEY"\n'
            for name, one in (("alpha", alpha), ("beta", beta))
        )
        moved = (
            head
            + providers
            + "# "
            + first.replace('provider = "local"', 'provider = "alpha"')
            + "[models.judge]"
            + second.replace('provider = "local"', 'provider = "beta"')
        )
        (tmp_path / "workflow.toml").write_text(moved)
        (tmp_path / "messages.csv").write_text((WORKFLOW.parent / "messages.csv").read_text())
        (tmp_path / "out").mkdir()
        (tmp_path / OUTPUT).write_text('{"ticket_id":"of an earlier run"}\n')
        yield alpha, beta


@pytest.mark.parametrize(
    ("wrong", "column", "reason"),
    [
        ("ALPHA_KEY", "summary", "401 from alpha/mock-large (invalid_api_key)"),
        ("BETA_KEY", "triage", "401 from beta/mock-large (invalid_api_key)"),
    ],
)
def test_a_wrong_key_stops_the_run_after_twenty_cells_and_says_which(
    keyed: tuple[MockProviderServer, MockProviderServer],
    tmp_path: Path,
    wrong: str,
    column: str,
    reason: str,
) -> None:
    alpha, beta = keyed
    keys = {"ALPHA_KEY": KEY, "BETA_KEY": KEY} | {wrong: "wrong-key"}
    done = forebay("run", "workflow.toml", "--no-report", "--fresh", cwd=tmp_path, environ=keys)

    assert done.returncode == 4, done.stderr
    assert f"finished cells of column '{column}' failed" in done.stderr
    assert reason in done.stderr
    assert "wrong-key" not in done.stdout + done.stderr
    assert (tmp_path / OUTPUT).read_text() == '{"ticket_id":"of an earlier run"}\n'
    if wrong == "ALPHA_KEY":
        assert statuses(beta) == {}
        assert statuses(alpha)[200] == 0
    else:
        assert 20 <= statuses(beta)[401] < RECORDS
        assert statuses(alpha)[200] < RECORDS, "it stops before it has paid for all of them"
    go_on = next(line for line in done.stderr.splitlines() if "go on:" in line)
    words = shlex.split(go_on.partition("forebay ")[2])
    resumed = forebay(*words, cwd=tmp_path, environ={"ALPHA_KEY": KEY, "BETA_KEY": KEY})
    assert resumed.returncode == 0, resumed.stderr
    assert len((tmp_path / OUTPUT).read_text().splitlines()) == RECORDS
    assert statuses(alpha)[200] == RECORDS, "what was finished is not paid twice"


def test_a_key_that_can_be_no_header_refuses_the_run_and_names_its_variable(
    keyed: tuple[MockProviderServer, MockProviderServer], tmp_path: Path
) -> None:
    keys = {"ALPHA_KEY": KEY, "BETA_KEY": "a key of words"}
    done = forebay("run", "workflow.toml", "--no-report", "--fresh", cwd=tmp_path, environ=keys)
    assert done.returncode == 1, done.stderr
    assert "provider 'beta' with the key in variable BETA_KEY cannot be called" in done.stderr
    assert "a key of words" not in done.stdout + done.stderr
    assert [statuses(one) for one in keyed] == [{}, {}]


# -- a server that restarts


def write_at_once(server: EmbeddedServer) -> None:
    """Let a server hold back nothing of its file, as it does for seconds while the disk is busy."""
    with open_sync(parse_url(server.url)) as client:
        client.config_set("appendfsync", "always")


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 2])
async def test_a_server_restart_in_mid_run_costs_no_record_and_no_call(
    provider: MockProviderServer, server: EmbeddedServer, tmp_path: Path, times: int
) -> None:
    words = ("run", WORKFLOW, "--no-report", "--url", server.url, "--workers", 2)
    write_at_once(server)
    running = start_forebay(*words, cwd=tmp_path, environ=provider_address(provider))
    try:
        for number in range(1, times + 1):
            enough = number * NEEDED // 4
            await wait_until(lambda: provider.state.counters.ok >= enough, timeout=60)  # noqa: B023
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
            write_at_once(server)
        out, said = await asyncio.to_thread(running.communicate, timeout=90)
    finally:
        running.kill()
    assert running.returncode == 0, said
    assert f"{RECORDS} of {RECORDS} records written" in out
    await is_whole(tmp_path, provider, twice=0)
    await wait_until(lambda: not remains(server.url))
    assert [report.ok for report in await audits(server.url)] == [True, True]


# -- a driver that is killed


def kill(running: object) -> None:
    running.send_signal(signal.SIGKILL)  # type: ignore[attr-defined]
    running.communicate(timeout=30)  # type: ignore[attr-defined]


async def resumed(
    folder: Path, provider: MockProviderServer, url: Callable[[str], str], *words: object
) -> None:
    """Go on with the run that was killed, whose id is that of its parts."""
    (parts,) = await asyncio.to_thread(lambda: list((folder / "out").glob("*.parts")))
    run_id = parts.name.removeprefix("support_triage.jsonl.").removesuffix(".parts")
    again = ("resume", run_id, "--no-report", "--url", url(run_id), *words)
    running = start_forebay(*again, cwd=folder, environ=provider_address(provider))
    try:
        out, said = await asyncio.to_thread(running.communicate, timeout=150)
    finally:
        running.kill()
    assert running.returncode == 0, said
    assert f"{RECORDS} of {RECORDS} records written" in out
    left = await asyncio.to_thread(lambda: sorted(p.name for p in (folder / "out").iterdir()))
    assert left == ["support_triage.jsonl"]


@pytest.mark.long
async def test_a_killed_driver_of_a_fleet_is_followed_by_another_one(
    provider: MockProviderServer, server: EmbeddedServer, tmp_path: Path
) -> None:
    address = provider_address(provider)
    with contextlib.ExitStack() as stack:
        options = ("--allow-path", str(WORKFLOW.parent))
        stack.callback(stop_workers, [start_worker(server.url, *options, environ=address)])
        running = start_forebay(
            "run", WORKFLOW, "--no-report", "--url", server.url, cwd=tmp_path, environ=address
        )
        stack.callback(running.kill)
        await wait_until(lambda: has_written_some(tmp_path), timeout=60)
        await asyncio.to_thread(kill, running)
        await resumed(tmp_path, provider, lambda _run_id: server.url)
        await is_whole(tmp_path, provider, twice=0)  # the workers lived on


@pytest.mark.long
async def test_a_killed_driver_with_a_server_of_its_own_is_followed_by_another_one(
    provider: MockProviderServer, tmp_path: Path
) -> None:
    running = start_forebay(
        "run", WORKFLOW, "--no-report", cwd=tmp_path, environ=provider_address(provider)
    )
    try:
        await wait_until(lambda: has_written_some(tmp_path), timeout=60)
    finally:
        await asyncio.to_thread(kill, running)  # its server and its workers end with it
    folder = tmp_path / "out"
    await resumed(
        tmp_path,
        provider,
        lambda run_id: str(
            EmbeddedAddress(data_dir=folder / f"support_triage.jsonl.{run_id}.server")
        ),
    )
    await is_whole(tmp_path, provider, twice=UNDER_WAY)


@pytest.mark.long
async def test_the_same_command_after_a_kill_says_what_is_there_and_goes_on_where_it_is_told_to(
    provider: MockProviderServer, tmp_path: Path
) -> None:
    address = provider_address(provider)
    running = start_forebay("run", WORKFLOW, "--no-report", cwd=tmp_path, environ=address)
    try:
        await wait_until(lambda: has_written_some(tmp_path), timeout=60)
    finally:
        await asyncio.to_thread(kill, running)
    (parts,) = await asyncio.to_thread(lambda: list((tmp_path / "out").glob("*.parts")))
    kept = await asyncio.to_thread(lambda: sorted(parts.iterdir()))
    await wait_until(lambda: provider.state.counters.in_flight == 0)
    before = provider.state.counters.ok
    again = await asyncio.to_thread(
        forebay, "run", WORKFLOW, "--no-report", cwd=tmp_path, environ=address
    )
    assert again.returncode == 1
    run_id = parts.name.removeprefix("support_triage.jsonl.").removesuffix(".parts")
    assert f"run {run_id} of this output is not over" in again.stderr
    assert f"forebay resume {run_id} --url embedded:///" in again.stderr
    assert "--resume to go on" in again.stderr
    assert provider.state.counters.ok == before, "nothing is begun before a person has chosen"
    assert await asyncio.to_thread(lambda: sorted(parts.iterdir())) == kept
    words = ("run", WORKFLOW, "--no-report", "--resume")
    done = await asyncio.to_thread(forebay, *words, cwd=tmp_path, environ=address)
    assert done.returncode == 0, done.stderr
    await is_whole(tmp_path, provider, twice=UNDER_WAY)
    done = await asyncio.to_thread(forebay, *words, cwd=tmp_path, environ=address)
    assert (done.returncode, done.stdout.startswith("nothing is left to do")) == (0, True)
