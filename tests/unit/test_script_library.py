"""A script as a library: declared once, forgetting everything between calls."""

from __future__ import annotations

import pytest

from forebay.coordinator.script_library import as_library
from forebay.coordinator.scripts import ENTRY_POINTS, compose

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
        "K = { meta = KEYS[1], };",
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
