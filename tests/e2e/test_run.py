"""`forebay run` on the example, with real servers, workers and a provider over HTTP."""

from __future__ import annotations

import pytest

from forebay.coordinator.server.embedded import EmbeddedServer
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
)

OUTPUT = "out/support_triage.jsonl"
DROPPED = "out/support_triage.dropped.jsonl"


@pytest.fixture
def provider():
    with MockProviderServer(ProviderTruth(), seed=7) as provider:
        yield provider


async def leaves_nothing(url):
    await wait_until(lambda: not remains(url))
    assert [report.ok for report in await audits(url)] == [True, True]


async def test_every_record_is_written_in_seed_order_wherever_the_server_is(
    provider, redis_url, tmp_path
):
    data, environ = tmp_path / "data", provider_address(provider)
    own, fleet = tmp_path / "own", tmp_path / "fleet"
    own.mkdir()
    fleet.mkdir()

    alone = forebay("run", WORKFLOW, "--url", f"embedded://{data}", cwd=own, environ=environ)
    assert alone.returncode == 0, alone.stderr
    assert "240 of 240 records written" in alone.stdout
    records = read_records(own / OUTPUT)
    seeds = seed_rows()
    assert [{name: row[name] for name in seeds[0]} for row in records] == seeds
    assert all(list(row) == COLUMNS for row in records)
    assert all(row["summary"] and row["triage"]["category"] and row["route"] for row in records)
    names = ["support_triage.jsonl", "support_triage.report.md", "support_triage.report.png"]
    assert sorted(path.name for path in (own / "out").iterdir()) == names
    report = (own / "out" / names[1]).read_text()
    assert "240 of 240 records written, 0 dropped." in report
    assert "\n| local/mock-large | 480 |" in report

    worker = start_worker(redis_url, "--allow-path", str(WORKFLOW.parent), environ=environ)
    try:
        words = ("run", WORKFLOW, "--url", redis_url, "--no-report")
        joint = forebay(*words, cwd=fleet, environ=environ)
    finally:
        stop_workers([worker])
    assert joint.returncode == 0, joint.stderr
    assert [path.name for path in (fleet / "out").iterdir()] == names[:1]
    assert (fleet / OUTPUT).read_bytes() == (own / OUTPUT).read_bytes()
    await leaves_nothing(redis_url)

    with EmbeddedServer(data) as again:
        await leaves_nothing(again.url)


async def test_answers_that_stay_broken_drop_their_records_with_reasons(
    provider, redis_url, tmp_path
):
    provider.change_truth(invalid_json_rate=0.55)  # few enough cells fail not to stop the run
    arguments = ("run", WORKFLOW, "--url", redis_url, "--workers", 1, "--no-report")
    done = forebay(*arguments, cwd=tmp_path, environ=provider_address(provider))
    assert done.returncode == 3, done.stderr
    written, dropped = read_records(tmp_path / OUTPUT), read_records(tmp_path / DROPPED)
    assert written
    assert dropped
    assert f"{len(written)} of 240 records written" in done.stdout
    assert f"{len(dropped)} dropped" in done.stdout

    tickets = [row["ticket_id"] for row in seed_rows()]
    lost = [row["record"] for row in dropped]
    assert lost == sorted(set(lost))
    kept = [ticket for number, ticket in enumerate(tickets) if number not in lost]
    assert [row["ticket_id"] for row in written] == kept
    assert {row["column"] for row in dropped} == {"triage"}
    assert all(row["reason"] for row in dropped)
    await leaves_nothing(redis_url)
