"""Asking a server an operator's question, as redis-cli does (docs/redis-cli.md)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from forebay.contracts.errors import ConfigurationError, CoordinatorError
from forebay.coordinator.keys import SHARDS_KEY, ShardKeys, encode
from forebay.coordinator.scripts.operator_library import LIBRARY
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server.rights import READER_RULES
from forebay.coordinator.server_connection import ServerConnection

NOT_THERE: Final = "Function not found"
MOST_SUGGESTED: Final = 3
_KINDS: Final = ("rq:", "pool:")
_NAMES: Final = frozenset(
    {"group", "member_id", "waiter_id", "lease_id", "task_id", "function", "host", "program"}
)
"""Fields of rows that hold names, which stand percent-encoded in keys and lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a question, read in one instant of each shard.

    Attributes:
        lines: for people; names stand encoded as in the keys.
        rows: the same for programs, names as they were given. The field ``row`` says what a row is
            of (``problem`` is of a shard that could not be read), ``captured_at`` is server time in
            seconds, and other fields have their units in their names.
    """

    lines: Sequence[str]
    rows: Sequence[Mapping[str, Any]]

    @property
    def is_whole(self) -> bool:
        """Whether every shard that was asked about could be read."""
        return not any(row["row"] == "problem" for row in self.rows)


async def ask_question(
    connection: ServerConnection,
    question: str,
    shard: str = "",
    *,
    rows: int | None = None,
    columns: int = 80,
) -> Answer:
    """Call one of the operators' functions and return its answer; writes nothing.

    Args:
        connection: connection to the server; left open.
        question: a name of `QUESTIONS`, such as ``who``.
        shard: a shard's tag, such as ``rq:openai/gpt-5``; "" for all.
        rows: most rows of a list; None leaves it to the function.
        columns: most columns of a line, 40 to 400.

    Raises:
        ConfigurationError: the user may not call functions.
        CoordinatorError: the server could not be used, or no member has loaded the functions.
    """
    if shard or not connection.is_cluster:
        return await _ask(connection, question, shard, (rows or "", "both", columns))
    tags = await connection.shards()
    if question == "shards":
        return Answer(
            lines=[
                f"{tag}  on {node.address}" for node, own in connection.by_node(tags) for tag in own
            ]
            or ["no shard: nobody has used Forebay on this cluster"],
            rows=[
                {"shard": tag, "row": "shard", "node": str(node.address)}
                for node, own in connection.by_node(tags)
                for tag in own
            ],
        )
    answers = [await _ask(connection, question, tag, (rows or "", "both", columns)) for tag in tags]
    return Answer(
        lines=[
            line
            for tag, answer in zip(tags, answers, strict=True)
            for line in (f"== {tag}", *answer.lines)
        ],
        rows=[row for answer in answers for row in answer.rows],
    )


async def _ask(
    connection: ServerConnection, question: str, shard: str, form: tuple[str | int, ...]
) -> Answer:
    """Call a function on the server of a shard, or of the index of shards."""
    doing = f"asking fb_{question}"
    key = ShardKeys(shard, ())["meta"] if shard else SHARDS_KEY
    try:
        async with connection.deadline():
            reply = await connection.ask(
                key, lambda node: node.client.fcall_ro(f"fb_{question}", 0, shard, *form)
            )
    except NoPermissionError as error:
        raise ConfigurationError(
            f"the server at {connection.address} forbids this user to ask ({error}), expected the"
            f" rights of a reader; grant it {' '.join(READER_RULES)} (forebay acl reader)."
        ) from error
    except ResponseError as error:
        if NOT_THERE in str(error):
            raise CoordinatorError(
                f"the server at {connection.address} has no functions {LIBRARY}, expected those"
                " that each member loads as it joins; start a member, or correct the URL."
            ) from error
        raise connection_error(error, connection.address, doing) from error
    except (RedisError, OSError) as error:
        raise connection_error(error, connection.address, doing) from error
    return decode_answer(reply, question)


def decode_answer(reply: Any, question: str) -> Answer:
    """Return what a function answered with the form ``both``; pure.

    Raises:
        CoordinatorError: the functions are those of another version, which answers otherwise.
    """
    match reply:
        case [list() as lines, list() as rows]:
            return Answer(
                lines=[line.decode(errors="backslashreplace") for line in lines],
                rows=[_named(json.loads(row)) for row in rows],
            )
        case _:
            raise CoordinatorError(
                f"fb_{question} was loaded by a member of another version of forebay, expected this"
                f" one's {LIBRARY}; ask with that version, or let a member of this one join."
            )


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its names as they were given, what it is of and when first."""
    names = {
        field: unquote(value) if field in _NAMES and isinstance(value, str) else value
        for field, value in row.items()
    }
    first = {field: names[field] for field in ("shard", "row", "captured_at") if field in names}
    return first | names


async def find_shard(connection: ServerConnection, name: str) -> str:
    """Return the tag of the shard that a name means.

    Args:
        connection: connection to the server; left open.
        name: a tag, or a provider/model or a pool alone; as it was given, or as it stands in keys.

    Raises:
        ConfigurationError: no shard has this name; the message names those that come near.
        CoordinatorError: the server could not be used.
    """
    tags = await connection.shards()
    parts = [encode(part) for part in name.split("/", 1)]
    for tag in (name, *(kind + one for kind in _KINDS for one in (name, "/".join(parts)))):
        if tag in tags:
            return tag
    near = nearest(name, tags)
    there = near or f"; this server has {', '.join(tags[:MOST_SUGGESTED]) or 'none'}"
    raise ConfigurationError(
        f"no shard on the server at {connection.address} is called {name!r}, expected one as"
        f" forebay shards lists it{there}."
    )


def nearest(name: str, tags: Sequence[str]) -> str:
    """Return a question that names what comes near a name that is not there; else ""."""
    by_name = {unquote(part): tag for tag in tags for part in (tag, tag.partition(":")[2])}
    found = difflib.get_close_matches(name, by_name, MOST_SUGGESTED)
    return f"; did you mean {' or '.join(found)}?" if found else ""
