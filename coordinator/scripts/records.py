"""Records as tools find them in a shard's ``meta``: texts with "|" between their parts.

``lua/lib/shard/records.lua`` writes them; which parts there are, its readers' own lists say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final, Literal

Kind = Literal["requests", "tasks"]
RECORD: Final = "record"
"""The field of ``meta`` with a shard's clock and counts."""
_LIST: Final = r"^local {name} = \{{(.*?)\}}"
_PART: Final = re.compile(r"'(\w+)'")


@cache
def parts(kind: Kind, field: str = RECORD) -> tuple[str, ...]:
    """Return the names of a record's parts in their order.

    Args:
        kind: of shard.
        field: of ``meta``: ``record``, or of a request shard ``window_<domain>``.

    Raises:
        ValueError: the kind has no such record.
    """
    name = "RECORD" if field == RECORD else "WINDOW_RECORD"
    text = (files("forebay.lua") / f"lib/{kind}/state.lua").read_text()
    found = re.search(_LIST.format(name=name), text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"a shard of {kind} has no record {field}; expected {RECORD}")
    return tuple(_PART.findall(found[1]))


def parsed(text: bytes | str | None, kind: Kind, field: str = RECORD) -> Mapping[str, str]:
    """Return a record's parts by name; empty for a record that was not written."""
    if text is None:
        return {}
    written = (text.decode() if isinstance(text, bytes) else text).split("|")
    names = parts(kind, field)
    return dict(zip(names[: len(written)], written, strict=True))  # a join writes the first ones
