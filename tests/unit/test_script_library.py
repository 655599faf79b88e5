"""A script as a library: declared once, forgetting everything between calls."""

from __future__ import annotations

import pytest

from forebay.coordinator.scripts.__main__ import main
from forebay.coordinator.scripts.composing import ENTRY_POINTS, compose
from forebay.coordinator.scripts.library import as_library

SOURCE = """\
-- Purpose.
--
-- KEYS
local K = {
  meta = KEYS[1],
}
local LIMIT = 3
local seen, count = {}, 0 -- of this call
local later
local rows = {
  1, -- one
  2,
}
local function add(name)
  seen[name] = count
end

add('x')
return count
"""


def test_variables_are_set_anew_in_each_call_and_constants_once() -> None:
    library = as_library(SOURCE, SOURCE.split("\n").index("add('x')"), "forebay_x").split("\n")
    main = next(line for line in library if line.startswith("local function main("))
    assert library[0] == "#!lua name=forebay_x"
    assert "local LIMIT = 3" in library
    assert "local seen, count" in library
    for assignment in (
        "if K.meta ~= KEYS[1] then K = { meta = KEYS[1], }; end",
        "seen, count = {}, 0;",
        "later = nil;",
        "rows = { 1, 2, };",
    ):
        assert assignment in main
    assert main.endswith("add('x')")
    assert len(library) == len(SOURCE.split("\n")) + 5


def test_a_declaration_that_cannot_be_set_anew_is_refused() -> None:
    source = SOURCE.replace("local later", "local later,more")
    with pytest.raises(ValueError, match="not a declaration"):
        as_library(source, source.split("\n").index("add('x')"), "forebay_x")


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_another_text_is_another_function(name: str) -> None:
    script = compose(name)
    other = compose(name, {"lib/int": "local function int(n) return n .. '' end"})
    assert script.function.startswith("forebay_")
    if script.text != other.text:
        assert script.function != other.function


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_show_prints_a_script_with_the_lines_that_a_server_s_errors_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", name]) == 0
    shown = capsys.readouterr().out.splitlines()
    is_library = name.endswith("/batch") or name in {"member/join", "member/heartbeat"}
    assert shown[0].startswith("#!lua" if is_library else "--")
    assert "KEYS[1]" in "\n".join(shown)
    assert len(shown) >= len(compose(name).origins)


def test_show_of_no_script_names_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "requests/nothing"]) == 2
    told = capsys.readouterr().err
    assert "requests/nothing" in told
    assert all(name in told for name in ENTRY_POINTS)


def test_a_library_that_is_made_in_another_way_of_the_same_text_is_another_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def made_otherwise(source: str, body_at: int, name: str) -> str:
        return as_library(source, body_at, name) + "-- made by another version\n"

    before = compose("requests/batch")
    monkeypatch.setattr("forebay.coordinator.scripts.composing.as_library", made_otherwise)
    after = compose("requests/batch")
    assert before.text == after.text
    assert before.function != after.function
