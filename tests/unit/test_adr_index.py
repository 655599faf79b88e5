"""docs/adr/index.md lists each decision, with its title as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

ADR = Path(__file__).resolve().parents[2] / "docs" / "adr"


def test_every_decision_is_listed_by_number_and_title() -> None:
    rows = re.findall(
        r"(?m)^\| \[(\d+)\]\(([\w-]+\.md)\) \| (.+?)(?: \(amended by \d+\))? \|$",
        (ADR / "index.md").read_text(encoding="utf-8"),
    )
    there = []
    for path in sorted(ADR.glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].partition(" ")[2]
        words = title.partition(" ")[2]
        there.append((path.name[:4], path.name, words[0].upper() + words[1:]))
    assert there == rows
