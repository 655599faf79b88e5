"""One connection that runs scripts, and what a server's refusal means.

Callers own no connection: cancelling one never cancels a command (spec 06, *Exactly once*).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from contracts.errors import CoordinatorError, CoordinatorFull, SchemaMismatch
from coordinator.scripts import Script


class LinkDownError(Exception):
    """The connection broke before a reply came; the call may or may not have been carried out."""


class NotAMemberError(Exception):
    """The shard does not know this member, or no longer."""


def refusal(script: Script, error: ResponseError) -> Exception:
    """Return the typed exception for a script's error reply: the one place that reads its code."""
    message = str(error)
    code, _, detail = message.partition(" ")
    match code:
        case "NOMEMBER":
            return NotAMemberError(detail)
        case "SCHEMA":
            return SchemaMismatch(
                f"the shard has schema version {detail}, which this version of forebay cannot"
                " speak; upgrade the older members, or use another server."
            )
        case "OOM":
            return CoordinatorFull(
                "the server is out of memory and refuses new work; raise its maxmemory or free"
                " some. What frees still works."
            )
        case _:
            return CoordinatorError(
                f"script {script.name} failed: {script.locate(message)}; please report this."
            )


class ScriptLink:
    """Runs scripts over one connection of its own, one call at a time.

    Args:
        client: whose pool makes the connection; without a socket timeout, as the caller bounds
            each call.
    """

    def __init__(self, client: aioredis.Redis) -> None:
        self._pool: Any = client.connection_pool  # making a connection has no types
        self._connection: Any = None

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> bytes:
        """Run a script and return its reply.

        Raises:
            LinkDownError: the connection broke; the call may be repeated if it is numbered.
            NotAMemberError, CoordinatorError: the script refused.
        """
        try:
            if self._connection is None:
                connection = self._pool.make_connection()
                await connection.connect()
                self._connection = connection
            try:
                return await self._call("EVALSHA", script.sha, keys, args)
            except NoScriptError:
                return await self._call("EVAL", script.text, keys, args)
        except OutOfMemoryError as error:
            raise refusal(script, ResponseError("OOM")) from error
        except ResponseError as error:
            raise refusal(script, error) from error
        except (RedisError, OSError) as error:
            await self.drop()
            raise LinkDownError(str(error)) from error
        except BaseException:
            # Cancelled half way through a reply: the connection cannot be used for another call.
            await self.drop()
            raise

    async def _call(
        self, command: str, which: str, keys: Sequence[str], args: Sequence[str | int]
    ) -> bytes:
        connection = self._connection
        if connection is None:
            raise RedisConnectionError("dropped")
        await connection.send_packed_command(
            connection.pack_command(command, which, len(keys), *keys, *args), check_health=False
        )
        reply: bytes = await connection.read_response()
        return reply

    async def drop(self) -> None:
        """Close the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
