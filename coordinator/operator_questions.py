"""Asking a server an operator's question, as redis-cli does (docs/redis-cli.md)."""

from __future__ import annotations

from redis.exceptions import RedisError, ResponseError

from forebay.contracts.errors import CoordinatorError
from forebay.coordinator.scripts.operator_library import LIBRARY
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server_connection import ServerConnection

NOT_THERE = "Function not found"


async def ask_question(connection: ServerConnection, question: str, *given: str) -> list[str]:
    """Call one of the operators' functions and return its lines; writes nothing.

    Args:
        connection: connection to the server; left open.
        question: a name of `QUESTIONS`, such as ``who``.
        given: a shard's name and a number of rows, each optional.

    Raises:
        CoordinatorError: the server could not be used, or no member has loaded the functions.
    """
    doing = f"asking fb_{question}"
    try:
        async with connection.deadline():
            lines = await connection.client.fcall_ro(f"fb_{question}", 0, *given)
    except ResponseError as error:
        if NOT_THERE in str(error):
            raise CoordinatorError(
                f"the server at {connection.address} has no functions {LIBRARY}, expected those"
                " that each member loads as it joins; start a member, or correct the URL."
            ) from error
        raise connection_error(error, connection.address, doing) from error
    except (RedisError, OSError) as error:
        raise connection_error(error, connection.address, doing) from error
    return [line.decode(errors="backslashreplace") for line in lines]
