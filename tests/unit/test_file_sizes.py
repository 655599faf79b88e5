"""A production file holds one idea: it has at most 300 lines."""

from __future__ import annotations

from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
MOST_LINES = 300


def lines_of_production_files() -> dict[str, int]:
    """Return the lines of each Python file that is shipped."""
    found = {}
    for folder in ("contracts", "coordinator", "workers", "forebay"):
        for path in (REPO / folder).rglob("*.py"):
            found[str(path.relative_to(REPO))] = len(path.read_text(encoding="utf-8").splitlines())
    return found


def test_no_production_file_is_longer_than_one_idea_needs() -> None:
    lines = lines_of_production_files()
    assert lines["coordinator/shard/session.py"] > 0  # that they were found
    too_long = {path: count for path, count in lines.items() if count > MOST_LINES}
    assert not too_long, "these files hold more than one idea: part them"
