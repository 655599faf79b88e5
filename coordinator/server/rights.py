"""The ACL rules of each kind of user (design 06, *Trust*), and the check of a user's rights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError

_LOOKS: Final = ("+@read", "+info", "+time", "+cluster|slots")
_CALLS: Final = (
    *("+@read", "+@write", "+@pubsub", "-@dangerous", "+info", "+time", "+fcall"),
    "+cluster|slots",
    *("+function|load", "+function|list", "+evalsha_ro", "+eval_ro"),
    *("-function|flush", "-function|delete", "-function|restore"),
)

REQUEST_RULES: Final = (
    *("~fb:{rq:*", "~fb:shards", "&fb:{rq:*"),
    *(*_CALLS, "-scan", "-randomkey"),
)
"""ACL rules of a member of request shards that may reach no key or channel of a pool."""
MEMBER_RULES: Final = ("~fb:*", "&fb:*", *_CALLS)
"""ACL rules of a member of request shards."""
POOL_RULES: Final = ("~arq:*", "+@transaction")
"""ACL rules of a member of task pools, besides `MEMBER_RULES`: arq reads jobs in transactions."""
READER_RULES: Final = (
    "~fb:*",
    *_LOOKS,
    "-keys",
    "+fcall_ro",
    "+pubsub|numsub",
    "+pubsub|shardnumsub",
)
"""ACL rules of a user who reads with redis-cli (``fb_help``) and changes nothing."""
OPERATOR_RULES: Final = ("+evalsha", "+eval", "+script|load")
"""ACL rules of an operator besides a member's, to reset windows and set caps."""

USERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "requests": ("takes part in request admission alone; reaches nothing of a pool", REQUEST_RULES),
    "pool": (
        "takes part in task pools, and its tasks in request admission",
        (*MEMBER_RULES, *POOL_RULES),
    ),
    "reader": ("asks with redis-cli, changes nothing", READER_RULES),
    "operator": (
        "resets windows, sets caps, rebuilds",
        (*MEMBER_RULES, *POOL_RULES, *OPERATOR_RULES),
    ),
}
"""User name -> purpose and ACL rules."""


def acl_lines(names: Sequence[str]) -> list[str]:
    """Return a line to paste into ``redis-cli`` for each kind of user, and what the user does."""
    lines = []
    for name in names:
        purpose, rules = USERS[name]
        lines += [f"# {name}: {purpose}", f"ACL SETUSER {name} on >PASSWORD {' '.join(rules)}"]
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One right of a user, with a command that tests it and changes nothing.

    Attributes:
        what: that the right is for.
        rule: the ACL rule that gives it.
        command: what is tried.
    """

    what: str
    rule: str
    command: tuple[str, ...]


_LIST: Final = ("FUNCTION LIST", "LIBRARYNAME")
_PROBE: Final = "fb:{rq:forebay-doctor}:probe"
_POOL_PROBE: Final = "fb:{pool:forebay-doctor}:probe"

RIGHTS: Final = {
    "look": (
        Right(what="read requests", rule="~fb:{rq:* +@read", command=("EXISTS", _PROBE)),
    ),
    "requests": (
        Right(what="write requests", rule="+@write", command=("UNLINK", _PROBE)),
        Right(what="wake members", rule="+@pubsub", command=("PUBLISH", _PROBE, "")),
        Right(what="call functions", rule="+fcall", command=("FCALL", "fb_none", "1", _PROBE)),
        Right(what="see libraries", rule="+function|list", command=(*_LIST, "forebay-doctor")),
        Right(what="load functions", rule="+function|load", command=("FUNCTION LOAD", "")),
        Right(what="take snapshots", rule="+eval_ro", command=("EVAL_RO", "return 1", "1", _PROBE)),
    ),
    "pools": (
        Right(what="read pools", rule="~fb:{pool:*", command=("EXISTS", _POOL_PROBE)),
        Right(what="read arq's keys", rule="~arq:*", command=("EXISTS", "arq:forebay-doctor")),
        Right(what="use transactions", rule="+@transaction", command=("UNWATCH",)),
    ),
    "administration": (
        Right(what="reset and cap", rule="+eval", command=("EVAL", "return 1", "1", _PROBE)),
    ),
}  # fmt: skip
"""The rights that each part of Forebay needs, each with a harmless command to test it."""


async def lacking(client: Any) -> dict[str, list[Right]]:
    """Return, for each part of Forebay, the rights that this connection's user lacks.

    Args:
        client: asyncio's, of the server.

    Raises:
        RedisError, OSError: the server could not be used.
    """
    return {
        part: [right for right in rights if not await _may(client, right)]
        for part, rights in RIGHTS.items()
    }


async def _may(client: Any, right: Right) -> bool:
    try:
        await client.execute_command(*right.command)
    except NoPermissionError:
        return False
    except ResponseError as error:  # an invalid command, which a user with the right may send
        return "permission" not in str(error).lower()
    return True
