"""docs/architecture.md names files that are there."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
FOLDERS = ("contracts", "coordinator", "lua", "workers", "forebay")


def test_every_file_of_a_table_is_there() -> None:
    rows = [
        line
        for line in (REPO / "docs" / "architecture.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    named = set(re.findall(r"`([\w/]+\.(?:py|lua))`", "\n".join(rows)))
    assert len(named) > 50  # that they were found
    there = {
        path.relative_to(REPO).as_posix()
        for folder in FOLDERS
        for path in (REPO / folder).rglob("*.*")
        if path.suffix in {".py", ".lua"}
    }
    missing = {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in there)}
    assert not missing
