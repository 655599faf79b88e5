"""Each reference to a design page, such as ``design 03, *Order*``, leads to a heading of it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PAGES = {path.name[:2]: path for path in (REPO / "docs" / "design").glob("[0-9][0-9]-*.md")}
REFERENCE = re.compile(r"\b[Dd]esign (\d\d)\b(?:, \*([^*]+)\*(?: (\d+))?)?")
LEFT = re.compile(r"\b[Ss]pec \d|[Dd]esign \d\d(?:,| and|;) \(?(?:and )?\d|[Dd]esign \d\d \(")
SUFFIXES = {".py", ".lua", ".md", ".toml", ".yml", ".mjs"}


def headings(page: str) -> set[str]:
    return set(re.findall(r"(?m)^#{1,4} (.+)$", PAGES[page].read_text(encoding="utf-8")))


def unwrapped(text: str) -> str:
    """Return a text in which a reference that was wrapped, in a comment too, stands on one line."""
    return re.sub(r"\n[ \t]*(?:--|#|\*(?=\s))?[ \t]*", " ", text)


def faults_of(text: str) -> list[str]:
    """Return each reference to a page, heading or numbered rule that is not there."""
    text = unwrapped(text)
    faults = [f"{found[0]!r} has not the one form" for found in LEFT.finditer(text)]
    for found in REFERENCE.finditer(text):
        page, heading, number = found.groups()
        if page not in PAGES:
            faults.append(f"{found[0]!r}: no page {page}")
        elif heading and heading not in headings(page):
            faults.append(f"{found[0]!r}: page {page} has no such heading")
        elif number and f"\n{number}. " not in PAGES[page].read_text(encoding="utf-8"):
            faults.append(f"{found[0]!r}: page {page} numbers no rule {number}")
    return faults


def texts() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        name: (REPO / name).read_text(encoding="utf-8")
        for name in listed.stdout.splitlines()
        if Path(name).suffix in SUFFIXES
        and name not in {"docs/design/index.md", Path(__file__).relative_to(REPO).as_posix()}
        and (REPO / name).is_file()
        and not (REPO / name).is_symlink()
    }


def test_every_reference_to_the_design_leads_to_a_heading() -> None:
    found = {name: faults_of(text) for name, text in texts().items()}
    assert not {name: faults for name, faults in found.items() if faults}


def test_the_references_are_found() -> None:
    count = sum(len(REFERENCE.findall(unwrapped(text))) for text in texts().values())
    assert len(PAGES) == 11
    assert count > 300


@pytest.mark.parametrize(
    "text",
    [
        "design 12",
        "(design 03, *Ordre*)",
        "(design 03,\n-- *Ordre*)",
        "design 01, *Invariants* 99",
        "spec 03, *Order*",
        "design 03, 06",
        "design 03 and 06",
        "design 03 (*Order*)",
    ],
)
def test_a_reference_that_leads_nowhere_is_a_fault(text: str) -> None:
    assert faults_of(text)


@pytest.mark.parametrize(
    "text", ["design 05", "(design 03, *Order*; design 06)", "(design 03,\n    *The window*)"]
)
def test_a_reference_that_leads_somewhere_is_none(text: str) -> None:
    assert not faults_of(text)
