"""What an operator who has nothing but ``redis-cli`` can look at (spec 07, *redis-cli*).

The read-only scripts are kept as texts in the hash ``fb:scripts``, so that no file is needed on the
operator's machine. Members write it on joining; `COMMANDS` says how to use it.

An operator types one key, a shard's ``meta``; the script derives the shard's other keys from it.
That is safe: the list of a shard's keys is fixed, all carry one hash tag and so lie in one slot on
one node of a cluster, ``EVAL_RO`` lets no script write, and the server checks a user's ACL on each
access. A slot that is being moved at that moment answers with an error: ask again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Mapping
from functools import lru_cache
from typing import Final, cast

import redis.asyncio as aioredis

from forebay.coordinator.keys import OPERATOR_SCRIPTS_KEY, POOL_KEYS, REQUEST_KEYS, SHARDS_KEY
from forebay.coordinator.scripts.composing import script

_SHARD: Final = "fb:{rq:local/mock-large}"

COMMANDS: Final[Mapping[str, str]] = {
    "list the shards": (
        f'redis-cli --raw EVAL_RO "$(redis-cli --raw HGET fb:scripts shards)" 1 {SHARDS_KEY}'
    ),
    "show a shard": (
        f"redis-cli --raw EVAL_RO \"$(redis-cli --raw HGET fb:scripts show)\" 1 '{_SHARD}:meta'"
    ),
    "audit a shard": (
        f"redis-cli --raw EVAL_RO \"$(redis-cli --raw HGET fb:scripts audit)\" 1 '{_SHARD}:meta'"
    ),
    "its last 20 events": f"redis-cli XREVRANGE '{_SHARD}:events' + - COUNT 20",
    "wait for its next event": f"redis-cli XREAD BLOCK 0 STREAMS '{_SHARD}:events' '$'",
}
"""One line each, by what it does; `help` in ``fb:scripts`` tells them."""

OPERATOR_RIGHTS: Final = ("~fb:*", "+@read", "-keys", "+eval_ro", "+time")
"""All that an ACL user needs for `COMMANDS`: ``ACL SETUSER operator on >password`` and these."""

_DIGEST_FIELD: Final = "digest"

_SHARD_KINDS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "rq": ("requests", REQUEST_KEYS),
    "pool": ("tasks", POOL_KEYS),
}
"""By the first part of a tag: where the scripts of this kind of shard lie below ``lua/``, and its
keys. Each kind has a ``show`` (ARGV: rows of each list) and an ``audit`` (ARGV: ``lines``)."""

_ARGUMENTS: Final = {"show": "100", "audit": "lines"}

_SHARD_KIND_AND_PREFIX: Final = """\
local shard_kind = string.match(KEYS[1] or '', '^fb:{(%a+):[^{}]+}:meta$')
local prefix = string.sub(KEYS[1] or '', 1, -5)
"""
_NO_SHARD: Final = """\
return { 'expected the meta key of a shard, such as fb:{rq:provider/model}:meta; the script `shards` lists them' }
"""  # noqa: E501 - one line of a reply


ARGUMENT_BYTES: Final = 131_071
"""The longest argument of a program on Linux: ``redis-cli`` is given a whole script as one."""


def _packed(text: str) -> str:
    """Return a script without comments and indentation; no string of ours spans lines."""
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("--"))


def _for_any_shard(name: str) -> str:
    """Return one text of ``name`` for every kind of shard, chosen by the tag of KEYS[1]."""
    parts = [_SHARD_KIND_AND_PREFIX]
    for shard_kind, (folder, kinds) in _SHARD_KINDS.items():
        keys = ", ".join(f"prefix .. '{kind}'" for kind in kinds)
        parts.append(
            f"if shard_kind == '{shard_kind}' then\n"
            f"local KEYS, ARGV = {{ {keys} }}, {{ '{_ARGUMENTS[name]}' }}\n"
            f"{script(f'{folder}/{name}').text}end\n"
        )
    return "".join([*parts, _NO_SHARD])


@lru_cache(maxsize=1)
def operator_scripts() -> Mapping[str, str]:
    """Return the fields of ``fb:scripts``: each script's text, ``help``, and a digest of them."""
    texts = {
        "shards": _packed(script("operator/shards").text),
        "show": _packed(_for_any_shard("show")),
        "audit": _packed(_for_any_shard("audit")),
        "help": "\n".join(f"# {what}\n{line}" for what, line in COMMANDS.items()),
    }
    digest = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()
    return texts | {_DIGEST_FIELD: digest}


async def publish_scripts(client: aioredis.Redis) -> None:
    """Put the operator's scripts on the server; one short read where they are there already.

    Members of different versions replace each other's; every version can look at every shard that
    it can join.

    Raises:
        RedisError, OSError: the server could not be used.
    """
    wanted = operator_scripts()
    published = await cast(
        "Awaitable[bytes | None]", client.hget(OPERATOR_SCRIPTS_KEY, _DIGEST_FIELD)
    )
    if published != wanted[_DIGEST_FIELD].encode():
        await cast("Awaitable[int]", client.hset(OPERATOR_SCRIPTS_KEY, mapping=dict(wanted)))
