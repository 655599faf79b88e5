"""What each column of a run waits for (design 05, *Workflow files*)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forebay.contracts.runs import RunSpec
from forebay.coordinator.runs.plan import awaited, build_plan
from forebay.coordinator.runs.scheduling import resolve_columns
from forebay.workers.generators.registry import build_generator
from forebay.workers.runs.workflow_file import load_workflow

HEAD = """
name = "letters"
output.path = "o.jsonl"
[[columns]]
generator = "seed"
names = ["id"]
path = "seed.csv"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed.csv").write_text("id\n1\n")
    (tmp_path / "plan_batches.py").write_text("def rank(records, models): ...\n")
    return tmp_path


def cell(name: str, template: str) -> str:
    return f"[[columns]]\ngenerator='expression'\nname='{name}'\ntemplate='{template}'\n"


def batch(name: str, needs: str) -> str:
    return (
        f"[[columns]]\ngenerator='python'\nname='{name}'\nneeds=['{needs}']\nbatch=true\n"
        "function='plan_batches:rank'\n"
    )


def plan_of(folder: Path, *columns: str) -> dict[str, list[str]]:
    """Return what each column waits for, by names."""
    (folder / "flow.toml").write_text(HEAD + "".join(columns))
    workflow = load_workflow(folder / "flow.toml", environ={})
    run = RunSpec(run_id="r", tenant="t", workflow=workflow)
    plan = json.loads(build_plan(workflow, resolve_columns(run, build_generator), {}))
    waits = awaited(workflow.columns)
    for place, column in enumerate(plan["columns"], 1):
        fed = [index for index, its in enumerate(waits, 1) if place - 1 in its]
        assert column["feeds"] == fed
    return {column["name"]: sorted(column["inputs"]) for column in plan["columns"]}


def test_a_batch_waits_for_all_that_may_drop_a_record_of_it(folder: Path) -> None:
    text, other = cell("text", "{{ id }}"), cell("other", "{{ id }}")
    behind = cell("behind", "{{ rank }}")
    assert plan_of(folder, text, batch("rank", "text"), other, behind) == {
        "id": [],
        "text": ["id"],
        "rank": ["id", "other", "text"],
        "other": ["id"],
        "behind": ["rank"],
    }


def test_of_two_batches_the_second_and_its_dependants_wait_for_the_first(
    folder: Path,
) -> None:
    text, behind = cell("text", "{{ id }}"), cell("behind", "{{ one }}")
    found = plan_of(folder, batch("two", "text"), text, batch("one", "text"), behind)
    assert found["two"] == ["id", "text"]
    assert found["one"] == ["id", "text", "two"]
    assert found["behind"] == ["one"]
