"""A script's header is its contract: it cannot lie about keys, arguments, replies and errors."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from forebay import lua
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.keys import (
    KEEP_UNUSED_SHARD_MS,
    POOL_KEYS,
    REQUEST_KEYS,
    pool_shard,
    request_shard,
)
from forebay.coordinator.scripts.composing import ENTRY_POINTS, ON_CLUSTERS, Script, compose
from forebay.coordinator.scripts.headers import BIND, SECTIONS, parse_header

WITH_OPERATIONS = [name for name in ENTRY_POINTS if name.endswith(("/batch", "/administer"))]
WRITERS = [name for name in ENTRY_POINTS if name.startswith("member/")] + WITH_OPERATIONS
NEVER_ANSWERED = {"requests/administer": {"OLDBATCH"}}
"""Codes in functions that a script gets with a fragment and does not call."""
FOLDERS: dict[str, set[tuple[str, ...]]] = {
    "requests": {REQUEST_KEYS},
    "tasks": {POOL_KEYS},
    "member": {REQUEST_KEYS, POOL_KEYS},
}
KEY_TYPES = {"hash", "zset", "set", "list", "stream", "string", "rest"}
ARGUMENT_TYPES = {"string", "integer", "real", "rest"}
SMALL_HEADER = "\n".join(
    [
        "-- Does something.",
        "--",
        "-- KEYS",
        "--   meta    hash    the clock,",
        "--                   and more of it",
        "--   others  rest    every other key",
        "-- ARGV",
        "--   who     string  who calls",
        "--   extra   rest    the others",
        *(f"-- {section}\n--   something" for section in SECTIONS[2:]),
        BIND,
        "",
    ]
)


@pytest.fixture(params=ENTRY_POINTS)
def script(request: pytest.FixtureRequest) -> Script:
    return compose(request.param)


@pytest.fixture(params=[name for name in WRITERS if name.endswith("/batch")])
def batch(request: pytest.FixtureRequest) -> Script:
    return compose(request.param)


def code(script: Script) -> str:
    """Return what the script does, without its comments."""
    return re.sub(r"(?m)--.*$", "", script.text)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


# -- the scripts that there are


def test_every_file_outside_lib_is_an_entry_point() -> None:
    root = Path(lua.__path__[0])
    found = {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.lua")}
    assert {name for name in found if not name.startswith("lib/")} == set(ENTRY_POINTS)


def test_every_fragment_is_part_of_some_script() -> None:
    root = Path(lua.__path__[0])
    fragments = {f"lua/{path.relative_to(root).as_posix()}" for path in root.rglob("lib/**/*.lua")}
    origins = {line for name in ENTRY_POINTS for line in compose(name).origins}
    included = {line.rsplit(":", 1)[0] for line in origins if line.startswith("lua/lib/")}
    assert fragments == included | {f"lua/{path}.lua" for path in ON_CLUSTERS.values()}


# -- what a header says


def test_header_has_every_section_filled(script: Script) -> None:
    assert script.header.purpose
    assert [name for name in SECTIONS[2:] if not script.header.sections[name].strip()] == []


def test_header_names_each_key_and_argument_once_with_a_known_type(script: Script) -> None:
    check_entries(script.header.keys, KEY_TYPES)
    check_entries(script.header.arguments, ARGUMENT_TYPES)


def check_entries(entries: tuple[tuple[str, str], ...], types: set[str]) -> None:
    names = [name for name, _type in entries]
    assert len(set(names)) == len(names)
    assert {kind for _name, kind in entries} <= types
    assert all(kind != "rest" for _name, kind in entries[:-1]), "only the last may be the rest"


def test_header_lists_the_shards_keys_in_their_order(script: Script) -> None:
    named = tuple(name for name, kind in script.header.keys if kind != "rest")
    for kinds in FOLDERS.get(script.name.split("/")[0], set()):
        whole = len(named) == len(script.header.keys) and script.name.split("/")[0] != "member"
        assert named == kinds if whole else set(named) <= set(kinds)


def test_keys_of_a_shard_are_named_by_their_kind() -> None:
    request = request_shard(ProviderModelKey(provider_name="acme", model_id="m"))
    assert request.all == [f"fb:{{rq:acme/m}}:{kind}" for kind in REQUEST_KEYS]
    assert pool_shard("p").all == [f"fb:{{pool:p}}:{kind}" for kind in POOL_KEYS]


def test_no_line_uses_a_key_that_the_header_does_not_list(script: Script) -> None:
    named = {name for name, kind in script.header.keys if kind != "rest"}
    text = code(script)
    assert set(re.findall(r"\bK\.(\w+)", text)) <= named
    for prefix in re.findall(r"\bK\['(\w+)'", text):
        assert any(name.startswith(prefix) for name in named), prefix


def test_every_argument_is_used(script: Script) -> None:
    text = code(script).replace(script.header.binding(), "")
    assert {name for name, _kind in script.header.arguments} - words(text) == set()


def test_every_function_of_a_table_that_is_called_is_there(script: Script) -> None:
    text = code(script)
    called = set(re.findall(r"\b([A-Z][A-Z_]+\.\w+)\(", text))
    there = set(re.findall(r"function ([A-Z][A-Z_]+\.\w+)", text))
    there |= set(re.findall(r"(?m)^([A-Z][A-Z_]+\.\w+) = ", text))
    assert called - there == set()


@pytest.mark.parametrize("name", WRITERS)
def test_every_error_code_is_in_the_header(name: str) -> None:
    script = compose(name)
    codes = set(re.findall(r"error_reply\('([A-Z]+)", code(script)))
    codes -= NEVER_ANSWERED.get(name, set())
    assert codes - words(script.header.sections["Errors"]) == set()


def test_every_status_word_is_in_the_header(batch: Script) -> None:
    statuses = set(re.findall(r"""'\["(\w+)"[\],]""", code(batch)))
    assert statuses - words(batch.header.sections["Reply"]) == set()


@pytest.mark.parametrize("name", WITH_OPERATIONS)
def test_every_operation_is_in_the_header(name: str) -> None:
    script = compose(name)
    table = re.search(r"(?ms)^local OPERATIONS = \{\n(.*?)^\}", code(script))
    listed = re.findall(r"(?m)^  (\w+) = ", table.group(1)) if table else []
    operations = {*listed, *re.findall(r"(?m)^(?:function )?OPERATIONS\.(\w+)", code(script))}
    assert operations
    assert operations - words(script.header.sections["ARGV"]) == set()


# -- composing


def test_binding_gives_keys_and_arguments_their_names() -> None:
    header = parse_header(SMALL_HEADER)
    assert header.keys == (("meta", "hash"), ("others", "rest"))
    assert header.binding().splitlines() == [
        "local K = {",
        "  meta = KEYS[1],",
        "}",
        "local who = ARGV[1]",
        "local extra = 2",
    ]


@pytest.mark.parametrize("section", SECTIONS)
def test_header_without_a_section_is_refused(section: str) -> None:
    with pytest.raises(ValueError, match=section):
        parse_header(SMALL_HEADER.replace(f"-- {section}\n", "-- Else\n"))


def test_fragment_is_inlined_once_before_it_is_used() -> None:
    texts = {
        "x": SMALL_HEADER + "-- @include a\n-- @include b\nreturn a + b",
        "a": "local a = 1",
        "b": "-- @include a\nlocal b = a",
    }
    body = compose("x", texts).text.splitlines()[-3:]
    assert body == ["local a = 1", "local b = a", "return a + b"]


@pytest.mark.parametrize(
    "texts",
    [
        {"a": "-- @include a"},
        {"a": "-- @include b", "b": "-- @include a"},
        {"a": "-- @include x"},
    ],
)
def test_include_cycle_is_refused(texts: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="include cycle"):
        compose("x", texts | {"x": SMALL_HEADER + "-- @include a"})


def test_error_names_the_line_of_its_source() -> None:
    texts = {"x": SMALL_HEADER + "-- @include a\nreturn 1", "a": "local a = 1\nerror('boom')"}
    script = compose("x", texts)
    line = script.text.splitlines().index("error('boom')") + 1
    assert script.locate(f"ERR user_script:{line}: boom") == "ERR lua/a.lua:2: boom"
    last = len(script.text.splitlines())
    own = len((SMALL_HEADER + "x\ny").splitlines())
    assert script.locate(f"user_script:{last}") == f"lua/x.lua:{own}"


def test_scripts_hash_names_its_text() -> None:
    texts = {"x": SMALL_HEADER + "return 1"}
    assert compose("x", texts).sha == compose("x", texts).sha
    assert compose("x", texts).sha != compose("x", {"x": SMALL_HEADER + "return 2"}).sha


def test_keys_that_a_call_makes_live_as_long_as_a_heartbeat_lets_them() -> None:
    text = (Path(lua.__path__[0]) / "lib/shard/expiry.lua").read_text()
    kept = re.search(r"kept_ms = ([\d* ]+) \}", text)
    assert kept is not None
    assert math.prod(map(int, kept[1].split("*"))) == KEEP_UNUSED_SHARD_MS
