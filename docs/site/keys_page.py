"""The page docs/reference/keys.md: every key in Redis, from the headers of the Lua scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.keys import (
    KEEP_UNUSED_SHARD_MS,
    PREFIX,
    SHARDS_KEY,
    ShardKeys,
    pool_shard,
    request_shard,
)

LUA: Final = Path(__file__).resolve().parents[2] / "lua"
_DAYS: Final = KEEP_UNUSED_SHARD_MS // (24 * 3600 * 1000)
_HEAD: Final = f"""# Keys in Redis

Made by `python -m docs.site.reference` from `coordinator/keys.py` and the headers of the Lua
scripts; a test keeps it current. Every key begins with `{PREFIX}`, but for those of arq. PROVIDER,
MODEL and NAME are percent-encoded outside `[A-Za-z0-9._~-]`. The `{{...}}` is a hash tag: the keys
of a shard are on one node of a cluster. Nothing but Forebay may write these keys.
[redis-cli.md](../redis-cli.md) says how to ask for their content,
[Redis design](../design/09-redis-design.md) why there is a fixed list.

In a meaning, `a -> b` is a field and its value, `|` separates the parts of a value, NUL is the
byte 0, *by X* is the score of a sorted set, and *by name* stands for a set whose scores are all
0. Times are microseconds of the server's clock, but where a meaning says otherwise.

A key of a shard expires {_DAYS} days after the last heartbeat or join of a member of the shard,
so a shard that nobody uses leaves nothing behind.
"""
_TYPES: Final = {"zset": "sorted set"}
_ENTRY: Final = re.compile(r"^-- {3}(\w+) +(\w+) +(.+(?:\n-- {6,}.+)*)", re.MULTILINE)
_BY_NO_SHARD: Final = (
    (
        f"`{SHARDS_KEY}`",
        "set",
        "The tags of all shards, `rq:PROVIDER/MODEL` and `pool:NAME`; joining members add to it.",
        "none",
    ),
    (
        "`arq:job:ID`",
        "string",
        "Payload of a task that waits or runs; as arq's own.",
        "arq's of the job, or none",
    ),
    (
        "`arq:in-progress:ID`",
        "string",
        "A task that runs: the pool's key `queue`, as arq's own.",
        "what the worker sets, from `job_timeout`",
    ),
    (
        "`arq:result:ID`",
        "string",
        "Result of a task that ended; as arq's own.",
        "`keep_result`, or none",
    ),
    (
        "`arq:abort`",
        "sorted set",
        "Tasks that a program asked to abort; arq writes it, by milliseconds.",
        "none; workers delete entries",
    ),
    (
        f"`{pool_shard('NAME')['queue']}:health-check`",
        "string",
        "Health record of the pool's worker that wrote last, for `forebay worker --check`.",
        "`health_check_interval` and 1 s",
    ),
    (
        "`arq:queue:health-check`",
        "string",
        "The same record, for `arq --check`.",
        "`health_check_interval` and 1 s",
    ),
)


class KeyEntry(NamedTuple):
    """A key in the header of a script: its kind, its type in Redis, its meaning."""

    kind: str
    type: str
    meaning: str


def entries_of(folder: str) -> dict[str, KeyEntry]:
    """Return the keys that a shard's scripts name in their common header, by kind."""
    text = (LUA / "lib" / folder / "keys.lua").read_text(encoding="utf-8")
    return {
        kind: KeyEntry(
            kind,
            _TYPES.get(type_, type_),
            re.sub(r"\s*\n-- +", " ", re.sub(r"\|\n-- +", "|", meaning)),
        )
        for kind, type_, meaning in _ENTRY.findall(text)
    }


def keys_page() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *_lines(), ""])


def _lines() -> Iterator[str]:
    model = ProviderModelKey(provider_name="PROVIDER", model_id="MODEL")
    yield from _shard("A provider/model", request_shard(model), "requests")
    yield from _shard("A task pool", pool_shard("NAME"), "tasks")
    yield "## Beside the shards\n"
    yield "| key | type | meaning | expires after |"
    yield "| --- | --- | --- | --- |"
    for row in _BY_NO_SHARD:
        yield f"| {' | '.join(row)} |"
    yield ""
    yield "ID is a task's id. A worker's `health_check_key` stands in the place of the last two,"
    yield "its `queue_name` in that of `arq:queue`.\n"
    yield "## Channels and functions\n"
    yield f"Members listen on `{pool_shard('NAME').wake_channel('MEMBER')}` and"
    yield f"`{request_shard(model).wake_channel('MEMBER')}` for grants and wake-ups;"
    yield "on a cluster these are sharded channels. Function libraries are named `forebay_HASH`,"
    yield "one for each script and version of Forebay, and `forebay_operators`."


def _shard(title: str, keys: ShardKeys, folder: str) -> Iterator[str]:
    entries = entries_of(folder)
    yield f"## {title}\n"
    yield f"`{keys['KIND']}`, where KIND is:\n"
    yield "| kind | type | meaning |"
    yield "| --- | --- | --- |"
    for kind in keys.kinds:
        entry = entries[kind]
        yield f"| `{kind}` | {entry.type} | {_cell(entry.meaning)} |"
    yield ""


def _cell(text: str) -> str:
    for special in "\\*<|~":
        text = text.replace(special, f"\\{special}")
    return text
