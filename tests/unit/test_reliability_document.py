"""The written sections of docs/reliability.md: where they stand, and that nothing else changes."""

from __future__ import annotations

import pytest

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
