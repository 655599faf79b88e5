"""The example workflows beside support triage, each made by a worker in this process."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from forebay.commands.check import check_command
from forebay.contracts.runs import RunSpec
from forebay.coordinator.server_connection import ServerConnection
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from forebay.workers.runs.allowlist import Allowlist
from forebay.workers.runs.driver import RunDriver, RunSummary
from forebay.workers.runs.run_cells import RunCells
from forebay.workers.runs.workflow_file import load_workflow
from tests.support import wait_until
from tests.support_arq import check_books, working
from tests.support_runs import read_records, remains

EXAMPLES = Path(__file__).parents[2] / "examples"


async def made(url: str, example: str, environ: dict[str, str]) -> RunSummary:
    """Run an example to its end with one worker, which may do what the workflow asks for."""
    workflow = load_workflow(EXAMPLES / example / "workflow.toml", environ=environ)
    allowed = Allowlist.of(paths=[EXAMPLES], hosts=["127.0.0.1"], code=["search_index"])
    cells = partial(RunCells, environ=environ, allowed=allowed)
    run = RunSpec(run_id=f"{workflow.name}-1", tenant="t", workflow=workflow)
    async with (
        working(url, cells=cells, max_jobs=32),
        await ServerConnection.open(url) as connection,
    ):
        summary = await RunDriver(connection, run).drive()
        await wait_until(lambda: not remains(url))
    await check_books(url)
    return summary


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def test_answers_are_judged_by_a_second_model_under_a_limit_of_its_own(redis_url: str):
    """Each provider refuses the first call above its model's cap, and refuses none."""
    sizes = [ProviderTruth(concurrency=cap, latency_median_seconds=0.02) for cap in (24, 6)]
    with MockProviderServer(sizes[0]) as large, MockProviderServer(sizes[1]) as careful:
        environ = {
            "FOREBAY_PROVIDER_LARGE_BASE_URL": large.base_url,
            "FOREBAY_PROVIDER_CAREFUL_BASE_URL": careful.base_url,
        }
        summary = await made(redis_url, "judged_answers", environ)
        counted = [one.state.counters for one in (large, careful)]
        assert [(each.ok, each.refused) for each in counted] == [(48, 0), (48, 0)]
    assert (summary.written, summary.dropped) == (48, 0)
    records = read_records(summary.output)
    assert [row["question_id"] for row in records] == [f"Q-{n:02d}" for n in range(1, 49)]
    for row in records:
        verdict = row["verdict"]
        assert row["is_usable"] == (verdict["score"] >= 3 and not verdict["invents"])
    assert {row["is_usable"] for row in records} == {True, False}


async def test_documents_are_embedded_and_compared_by_code_of_the_example(redis_url: str):
    with MockProviderServer(ProviderTruth(embedding_dimensions=8)) as provider:
        environ = {"FOREBAY_PROVIDER_LOCAL_BASE_URL": provider.base_url}
        summary = await made(redis_url, "document_search", environ)
        assert provider.state.counters.ok == 24  # one call a document, whatever its length
    assert (summary.written, summary.dropped) == (24, 0)
    records = read_records(summary.output)
    documents = (EXAMPLES / "document_search" / "documents.jsonl").read_text().splitlines()
    for row, line in zip(records, documents, strict=True):
        assert " ".join(entry["passage"] for entry in row["passages"]) == json.loads(line)["text"]
        assert {len(entry["vector"]) for entry in row["passages"]} == {8}
    for place in range(0, 24, 8):
        group = {row["doc_id"] for row in records[place : place + 8]}
        assert all(row["nearest"] in group - {row["doc_id"]} for row in records[place : place + 8])


def test_a_check_names_the_models_that_code_of_a_column_calls() -> None:
    workflow = EXAMPLES / "document_search" / "workflow.toml"
    done = CliRunner().invoke(check_command, [str(workflow)])
    assert done.exit_code == 0, done.output
    shown = "  passages  python  model embedder = local/mock-embedding  needs title, text"
    assert shown in done.output.splitlines()


@pytest.mark.parametrize("example", ["support_triage", "judged_answers", "document_search"])
def test_a_workflows_readme_and_file_name_the_one_command_that_runs_it(example: str) -> None:
    command = f"forebay run examples/{example}/workflow.toml"
    folder = EXAMPLES / example
    assert command in (folder / "README.md").read_text()
    assert f"# Start it with: {command}\n" in (folder / "workflow.toml").read_text()
