"""docs/events.md names each kind of event that there is, with its fields, and no other."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from forebay.contracts.event_kinds import RequestEventKind, SchedulerEventKind

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "events.md").read_text(encoding="utf-8")
PROCESS, SHARD = PAGE.split("## Of a shard, in its stream")
ROW = re.compile(r"^\| `(?P<kind>\w+)` \|(?P<fields>[^|]*)\|", re.MULTILINE)
CALL = re.compile(
    r"\b(?P<how>emit|STATE\.emit_task|IDENTITY\.emit)\((?P<rest>[^\n]*(?:\n {4,}[^\n]*)*)"
)
OF_PROCESS = ("member_id", "host", "pid", "program", "version")
TWO_KINDS = re.compile(r"'(request_\w+)' or '(request_\w+)'")


def rows(text: str) -> dict[str, set[str]]:
    """Return the fields of each kind in a table."""
    return {
        row["kind"]: set(re.findall(r"`([\w.]+)`", row["fields"])) for row in ROW.finditer(text)
    }


def arguments(text: str) -> list[str]:
    """Return the arguments of a call, from behind its opening bracket to the closing one."""
    found, depth, begin = [], 0, 0
    for at, letter in enumerate(text):
        if letter in ",)" and depth == 0:
            found.append(text[begin:at].strip())
            begin = at + 1
            if letter == ")":
                return found
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(letter, 0)
    raise AssertionError(f"a call without an end: {text}")


def written_by_scripts() -> dict[str, set[str]]:
    """Return the fields of each kind that a script writes, as its source names them."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for path in (REPO / "lua").rglob("*.lua"):
        text = path.read_text(encoding="utf-8")
        for call in CALL.finditer(text):
            first, *rest = arguments(call["rest"])
            given = rest[2:] if call["how"].startswith("IDENTITY") else rest
            names = {name.strip("'") for name in given[::2] if name.startswith("'")}
            if call["how"].startswith("IDENTITY"):
                names |= set(OF_PROCESS)
            for kind in kinds_of(first, text):
                kinds[kind] |= names
    return dict(kinds)


def kinds_of(first: str, text: str) -> list[str]:
    """Return the kinds that the first argument of a call may be."""
    if re.fullmatch(r"'\w+'", first):
        return [first.strip("'")]
    if two := TWO_KINDS.search(first):
        return list(two.groups())
    assigned = re.search(rf"local {re.escape(first)} = [^\n]*", text) if first == "kind" else None
    two = TWO_KINDS.search(assigned[0]) if assigned else None
    return list(two.groups()) if two else []  # what passes a kind on


def test_each_kind_that_scripts_write_is_documented_with_its_fields() -> None:
    assert rows(SHARD) == written_by_scripts()


def test_each_kind_that_a_process_tells_is_documented_and_no_other() -> None:
    kinds = {kind.value for kind in (*RequestEventKind, *SchedulerEventKind)}
    assert set(rows(PROCESS)) == kinds
