"""Functions on the server for operators with ``redis-cli`` alone.

Rules: design 07, *redis-cli*; docs/adr/0033.

One function library on the server, `LIBRARY`, has a read-only function for each question:
``FCALL_RO fb_show 0 rq:provider/model``. So no file is needed on the operator's machine. Members
load it on joining; `COMMANDS` says how to use it, as ``fb_help`` does on the server.

An operator names a shard and no key; the functions derive the shard's keys from its name. That is
safe: the list of a shard's keys is fixed, ``FCALL_RO`` lets no function write, and the server
checks a user's ACL on each access. On a cluster a key of the shard routes the call to its node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from redis.exceptions import ResponseError

from forebay.coordinator.keys import POOL_KEYS, REQUEST_KEYS
from forebay.coordinator.logs import Logger
from forebay.coordinator.scripts.composing import compose

LIBRARY: Final = "forebay_operators"
"""Name of the function library; members of different versions replace each other's."""

QUESTIONS: Final = (
    *("shards", "show", "who", "members", "waiters", "shares", "events", "audit", "doctor"),
)
"""Names of the operators' functions, each registered as ``fb_`` and its name."""

READ: Final = "read"
"""Name of a further function, for programs whose user may evaluate no script."""

_SHARD: Final = "rq:local/mock-large"
_ASK: Final = "redis-cli --raw FCALL_RO"

COMMANDS: Final[Mapping[str, str]] = {
    "which shards and pools there are": f"{_ASK} fb_shards 0",
    "where a window is, what moved it last, what comes next": f"{_ASK} fb_show 0 {_SHARD}",
    "who holds leases, and how long": f"{_ASK} fb_who 0 {_SHARD}",
    "who is a member, since when, and its last heartbeat": f"{_ASK} fb_members 0 {_SHARD}",
    "who waits, in what order, since when": f"{_ASK} fb_waiters 0 {_SHARD}",
    "which group floods, what each got against its weight": f"{_ASK} fb_shares 0 {_SHARD}",
    "whether anything is leaked: of every shard": f"{_ASK} fb_audit 0",
    "the last events of a shard": f"{_ASK} fb_events 0 {_SHARD}",
    "whether the server is sound": f"{_ASK} fb_doctor 0",
    "wait for the next event": f"redis-cli XREAD BLOCK 0 STREAMS 'fb:{{{_SHARD}}}:events' '$'",
}
"""The help line of each function; ``fb_help`` returns them."""

_HELP: Final = (
    "Name a shard as fb_shards lists it; without one, a function tells of all.",
    "A number behind the shard says how many rows a list has: fb_waiters 0 pool:default 50.",
    "Without a shard, the number alone does: fb_waiters 0 50. Each list has at most so many rows.",
    "For programs, rows behind the number gives JSON: fb_waiters 0 pool:default 50 rows.",
    "On a cluster name a key of the shard, with redis-cli -c:",
    "fb_show 1 'fb:{rq:local/mock-large}:meta'",
)

_LOOKS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "rq": ("requests/look", REQUEST_KEYS),
    "pool": ("tasks/look", POOL_KEYS),
}
"""First part of a tag -> the script that reads such a shard, and the shard's keys."""

_LOOKS_FRAGMENT: Final = "lib/operator/looks"

log = Logger("forebay.operators")


def packed(text: str) -> str:
    """Return a script without comments and indentation; no string of ours spans lines."""
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("--"))


def ask_text(fragments: Mapping[str, str] | None = None) -> str:
    """Return the script of all operators' functions: ``operator/ask`` with both ``look``.

    Each ``look`` is a function whose body is the whole script, so it declares its variables in each
    call, and nothing of one call or one shard is seen by the next.

    Args:
        fragments: texts that stand in for files, by path: tests put another clock in.
    """
    replaced = dict(fragments or {})
    parts = ["local LOOKS = {}\n"]
    for kind, (name, kinds) in _LOOKS.items():
        keys = ", ".join(f"'{one}'" for one in kinds)
        parts.append(
            f"LOOKS.{kind} = {{ kinds = {{ {keys} }} }}\n"
            f"function LOOKS.{kind}.ask(KEYS, ARGV)\n{compose(name, replaced).text}end\n"
        )
    return packed(compose("operator/ask", replaced | {_LOOKS_FRAGMENT: "".join(parts)}).text)


@lru_cache(maxsize=1)
def operator_library() -> str:
    """Return the text of `LIBRARY`; a digest of it is the description of ``fb_version``."""
    text = ask_text()
    help_lines = [line for what, command in COMMANDS.items() for line in (f"# {what}", command)]
    told = ", ".join(f"[[{line}]]" for line in (*help_lines, *_HELP))
    functions = [
        f"register('{name}', function(keys, given)\n"
        f"return ask(keys, {{ '{name}', unpack(given) }}) end)\n"
        for name in (*QUESTIONS, READ)
    ]
    body = (
        f"local function ask(KEYS, ARGV)\n{text}end\n"
        "local function register(name, answer, description)\n"
        "redis.register_function{ function_name = 'fb_' .. name, callback = answer,\n"
        "description = description,\n"
        "flags = { 'no-writes', 'allow-stale', 'allow-cross-slot-keys' } }\nend\n"
        f"{''.join(functions)}register('help', function() return {{ {told} }} end)\n"
    )
    digest = hashlib.sha256(body.encode()).hexdigest()
    version = f"register('version', function() return '{digest}' end, '{digest}')\n"
    return f"#!lua name={LIBRARY}\n{body}{version}"


def library_version() -> str:
    """Return the digest of this version's library."""
    return operator_library().rpartition("return '")[2].partition("'")[0]


async def publish_functions(client: Any) -> None:
    """Load the operators' library unless the server has it, which one short read tells.

    The version is read and not asked for by a call: whoever may load a library may have put any
    code in this one's place, which would then run with this member's rights. A function's name that
    another library has taken is left to it, with a warning: members work without these functions.

    Args:
        client: asyncio's, of the server.

    Raises:
        RedisError, OSError: the server could not be used.
    """
    found = await client.execute_command("FUNCTION LIST", "LIBRARYNAME", LIBRARY)
    if library_version() in described(found).values():
        return
    try:
        await client.execute_command("FUNCTION LOAD", "REPLACE", operator_library())
    except ResponseError as error:
        if "already exists" not in str(error):
            raise
        log.warning(
            "operator_functions_not_loaded",
            fault=f"another library has the name of a function ({error})",
            remedy=f"see FUNCTION LIST; FUNCTION DELETE it, or do without {LIBRARY}",
        )


def described(found: Any) -> dict[str, str]:
    """Return the description of each function of a reply of FUNCTION LIST, by its name."""
    told = {}
    for library in found:
        for function in dict(zip(library[::2], library[1::2], strict=True))[b"functions"]:
            fields = dict(zip(function[::2], function[1::2], strict=True))
            told[fields[b"name"].decode()] = (fields[b"description"] or b"").decode()
    return told
