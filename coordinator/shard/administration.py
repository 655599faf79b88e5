"""Calls by which an operator changes a shard of either kind; the caller need be no member."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoPermissionError, NoScriptError, RedisError, ResponseError

from forebay.coordinator.keys import SCHEMA_VERSION, ShardKeys
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.server.membership import member_keys
from forebay.coordinator.server.node import Node
from forebay.coordinator.server.refusals import connection_error, is_passing, refusal
from forebay.coordinator.server_connection import ServerConnection


class NeverUsedError(Exception):
    """Error: no member has ever used the shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """A rebuild that has begun.

    Attributes:
        awaited: how many members are to state what they hold.
        most_seconds: how long the shard waits for them at most.
    """

    awaited: int
    most_seconds: float


async def begin_rebuild(connection: ServerConnection, keys: ShardKeys) -> Rebuilding:
    """Give a shard a new generation; the next call on it does the rest (ADR 0023).

    Raises:
        NeverUsedError: nobody has used the shard.
        CoordinatorError: the server could not be used, or another version wrote the shard.
    """
    arguments = (SCHEMA_VERSION, secrets.token_hex(6))
    now_us, until_us, awaited = await run_operator_script(
        connection, "member/rebuild", member_keys(keys), arguments
    )
    return Rebuilding(awaited=awaited, most_seconds=(until_us - now_us) / 1e6)


async def run_operator_script(
    connection: ServerConnection, name: str, keys: Sequence[str], arguments: Sequence[str | int]
) -> tuple[int, int, int]:
    """Run an operator's script and return the three numbers that it answers.

    Raises:
        NeverUsedError: nobody has used the shard.
        CoordinatorError: the server could not be used, the shard is damaged, or another version
            wrote it.
    """
    which, doing = script(name), f"running {name}"

    async def run(node: Node) -> Any:
        ours = node.libraries.variant(which)
        try:
            return await node.client.evalsha(ours.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await node.client.eval(ours.text, len(keys), *keys, *arguments)

    try:
        async with connection.deadline():
            reply = await connection.ask(keys[0], run)
    except ResponseError as error:
        if isinstance(error, NoPermissionError) or is_passing(error):
            raise connection_error(error, connection.address, doing) from error
        if str(error).startswith("NOSHARD"):
            raise NeverUsedError from error
        raise refusal(which, keys, error) from error
    except (RedisError, OSError) as error:
        raise connection_error(error, connection.address, doing) from error
    first, second, third = json.loads(reply)
    return first, second, third
