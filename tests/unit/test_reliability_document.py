"""Sections of docs/reliability.md are written in their places, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.reliability import sections
from bench.reliability.command import DOCUMENT
from bench.reliability.document import begin_mark, end_mark, replace_section, table
from bench.reliability.sections import SECTIONS
from forebay.contracts.errors import ConfigurationError

TEXT = f"above\n\n{begin_mark('one')}\nold\n{end_mark('one')}\n\nbelow\n"


def test_a_section_is_replaced_and_nothing_else() -> None:
    written = replace_section(TEXT, "one", table(("a", "b"), [("1", "2")]))
    assert written == (
        f"above\n\n{begin_mark('one')}\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n"
        f"{end_mark('one')}\n\nbelow\n"
    )
    assert replace_section(written, "one", "new") == replace_section(TEXT, "one", "new")


@pytest.mark.parametrize("text", ["", TEXT * 2, TEXT.replace("end of", "")])
def test_a_document_without_the_place_of_a_section_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected one; write"):
        replace_section(text, "one", "new")


def test_the_document_has_a_place_for_each_section() -> None:
    text = DOCUMENT.read_text()
    for name in SECTIONS:
        assert replace_section(text, name, "new") != text


def test_chaos_section_says_when_its_run_was_measured_not_when_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "CHAOS_OUT", tmp_path)
    result = {"given": {"seed": 3, "seconds": 60}, "injected": {"server_killed": 2}, "counts": {}}
    measured = result | {"differences": [], "measured_on": "Measured on 2001-02-03."}
    measured["survived"] = {"server_killed": 1}
    (tmp_path / "seed-3.found.json").write_text(json.dumps(measured))
    said = sections.chaos(True)
    assert said.startswith("Measured on 2001-02-03. Seed 3, 60 s of faults, 2 a minute.")
    assert "| server_killed | 2 | 1 |" in said
