"""docs/architecture.md names files and tests that are there, and each section of the design."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
ARCHITECTURE = REPO / "docs" / "architecture.md"
NO_RULES = {
    ("01", "Two questions, two layers"),
    ("01", "The way data takes"),
    ("01", "Who owns what"),
    ("01", "What it is not"),
    ("11", "What costs what, under `aimd`"),
    ("11", "Weak, honestly"),
    ("11", "Not built"),
}
"""Sections that explain, and promise nothing that the others do not."""
FOLDERS = ("contracts", "coordinator", "lua", "workers", "forebay", "bench")


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


def named_tests(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", text))


def is_there(file: str, test: str) -> bool:
    path = REPO / "tests" / file
    return path.is_file() and re.search(rf"def {test}\(", path.read_text()) is not None


def test_every_test_that_is_named_is_there() -> None:
    named = named_tests(ARCHITECTURE.read_text())
    assert len(named) > 100  # that they were found
    assert not {name for name in named if not is_there(*name)}


def test_a_test_that_is_not_there_is_found() -> None:
    own = "unit/test_architecture.py"
    assert is_there(own, "test_a_test_that_is_not_there_is_found")
    assert not is_there(own, "test_" + "nobody_wrote")
    assert not is_there("unit/test_" + "nobody_wrote.py", "test_nothing")


def test_every_rule_has_a_test() -> None:
    rules, sections = (rows_of(title) for title in ("Where each rule", "Where each section"))
    assert len(rules) > 50
    assert not [row for row in rules + sections if not named_tests(row)]


def test_every_section_of_the_design_has_a_row() -> None:
    pages = {path.name[:2]: path for path in (REPO / "docs" / "design").glob("[0-9]*.md")}
    headings = {
        (page, heading)
        for page, path in pages.items()
        for heading in re.findall(r"(?m)^##+ (.+)$", path.read_text())
    }
    rows = re.findall(r"\| \[(\d\d), \*(.+?)\*\]", ARCHITECTURE.read_text())
    assert headings - NO_RULES == set(rows)


def rows_of(title: str) -> list[str]:
    text = ARCHITECTURE.read_text().split(f"\n## {title}")[1].split("\n## ")[0]
    return [line for line in text.splitlines() if line.startswith("| ")][2:]
