"""One connection that runs scripts, and what a server's refusal means.

Callers own no connection: cancelling one never cancels a command (spec 06, *Exactly once*).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from forebay.contracts.errors import (
    ConfigurationError,
    CoordinatorError,
    CoordinatorFull,
    ForebayError,
    SchemaMismatch,
)
from forebay.coordinator.keys import SCHEMA_VERSION
from forebay.coordinator.scripts.composing import FUNCTION_NOT_FOUND, Script
from forebay.coordinator.server.address import ServerAddress
from forebay.coordinator.server.connections import connection_error
from forebay.coordinator.server.wire import Wire, open_wire

_PASSING: Final = frozenset(
    {
        *("TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "ASK", "MOVED"),
        *("NOREPLICAS", "MISCONF", "BUSY"),
    }
)


Answer = bytes | list[bytes] | Exception
"""A reply, alone or followed by payloads that it speaks of; or why there is none."""
Answered = Callable[[Answer], None]


class LinkDownError(Exception):
    """The connection broke before a reply came; the call may or may not have been carried out."""


class NotAMemberError(Exception):
    """The shard does not know this member, or no longer."""


def is_passing(error: ResponseError) -> bool:
    """Whether an error reply tells of a state that passes (spec 06).

    A failover, a slot that moves, a replica or a disk that is away, a script that runs too long,
    functions that somebody flushed.
    """
    return (
        isinstance(error, ReadOnlyError)
        or str(error) == FUNCTION_NOT_FOUND
        or str(error).partition(" ")[0] in _PASSING
    )


def refusal(script: Script, keys: Sequence[str], error: ResponseError) -> Exception:
    """Return the typed exception for a script's error reply: the one place that reads its code.

    Args:
        script: what was run.
        keys: its KEYS, of a shard.
        error: what the server answered.
    """
    message = str(error)
    code, _, detail = message.partition(" ")
    if isinstance(error, NoPermissionError):
        return _forbidden(error)
    if isinstance(error, OutOfMemoryError):
        return CoordinatorFull(
            "the server is out of memory and refuses new work; raise its maxmemory or free some."
            " What frees still works."
        )
    match code:
        case "NOMEMBER":
            return NotAMemberError(detail)
        case "SCHEMA":
            shard = keys[0].rpartition(":")[0]
            return SchemaMismatch(
                f"the shard {shard} has schema version {detail}, and this version of forebay speaks"
                f" {SCHEMA_VERSION} alone; upgrade the older members, or, where none runs any more,"
                f" delete the shard's keys ({shard}:*) or use another server."
            )
        case _:
            return CoordinatorError(
                f"script {script.name} failed: {script.locate(message)}; please report this."
            )


def reading_error(
    script: Script, keys: Sequence[str], error: RedisError | OSError, address: ServerAddress
) -> Exception:
    """Return the typed exception for a look at a shard that failed."""
    if isinstance(error, ResponseError) and str(error).startswith("SCHEMA "):
        return refusal(script, keys, error)
    return connection_error(error, address, f"running {script.name}")


def _forbidden(error: NoPermissionError) -> ConfigurationError:
    return ConfigurationError(
        f"the server forbids this user what a member needs ({error}); grant it ~fb:* &fb:* +@read"
        " +@write +@pubsub -@dangerous +info +time +fcall +function|load +function|list +evalsha_ro"
        " +eval_ro -function|flush -function|delete, or name another user in the URL."
    )


def refused_operation(code: str, detail: str) -> ForebayError:
    """Return the typed exception for one operation of a batch that was refused."""
    if code == "ATTEMPT_ID_USED":
        return ConfigurationError(
            f"attempt id {unquote(detail)!r} was used before; make one per attempt, or leave it"
            " out: RequestAdmissionItem makes its own."
        )
    return CoordinatorError(f"the shard refused an operation: {code} {detail}; please report this.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a script, as a function that the server keeps (ADR 0006).

    Attributes:
        script: what is run.
        keys: its KEYS.
        arguments: its ARGV.
        is_freeing: whether it only gives back, and so runs in a server without memory too.
    """

    script: Script
    keys: Sequence[str]
    arguments: Sequence[str | int | bytes]
    is_freeing: bool = False


class ScriptLink:
    """Runs scripts over one connection of its own, one call at a time.

    Args:
        client: whose pool makes the connection; without a socket timeout, as the caller bounds
            each call.
        scripts: what will be run.
    """

    def __init__(self, client: aioredis.Redis, scripts: Sequence[Script]) -> None:
        self._client: Any = client  # its types mix the blocking and the async client
        self._scripts = scripts
        self._wire: Wire | None = None
        self._under_way: tuple[Call, Answered] | None = None

    @property
    def is_up(self) -> bool:
        """Whether there is a connection to send over."""
        return self._wire is not None

    async def connect(self) -> None:
        """Open the connection, where there is none, to a server that knows the scripts.

        Raises:
            LinkDownError: the server could not be reached, or refused the login.
            ConfigurationError: its user may not load functions.
        """
        if self._wire is not None:
            return
        try:
            for script in self._scripts:
                if not await self._client.function_list(library=script.function):
                    await self._client.function_load(script.library, replace=True)
            self._wire = await open_wire(self._client, self._on_reply, self._on_lost)
        except NoPermissionError as error:
            raise _forbidden(error) from error
        except (RedisError, OSError) as error:
            raise LinkDownError(str(error)) from error

    def send(self, call: Call, answered: Answered) -> None:
        """Send one call, after the one before has been answered.

        Args:
            call: what is run.
            answered: told, once, the reply, or a LinkDownError after which a numbered call may be
                repeated, or what the script refused with: a NotAMemberError or CoordinatorError.

        Raises:
            TypeError, ValueError: an argument has no form in bytes; nothing was sent, and
                ``answered`` is told nothing.
        """
        if self._wire is None:
            answered(LinkDownError("the connection is not open"))
            return
        script = call.script
        function = script.freeing_function if call.is_freeing else script.function
        self._wire.write("FCALL", function, len(call.keys), *call.keys, *call.arguments)
        self._under_way = (call, answered)  # no reply can come before the loop turns

    async def run(self, call: Call) -> bytes:
        """Run a script and return its reply.

        Raises:
            LinkDownError: the connection broke.
            NotAMemberError, CoordinatorError: the script refused.
        """
        reply: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(answer: Answer) -> None:
            if not reply.done():
                reply.set_result(answer)

        self.send(call, answered)
        try:
            answer = await reply
        except asyncio.CancelledError:
            self.drop()  # else the reply, once it comes, would be taken for the next call's
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer[0] if isinstance(answer, list) else answer

    def drop(self) -> None:
        """Close the connection; a call under way is answered with a LinkDownError."""
        self._on_lost(RedisConnectionError("the connection was dropped"))

    def _on_reply(self, reply: Any) -> None:
        is_answer = isinstance(reply, bytes | list) or (
            isinstance(reply, ResponseError) and not is_passing(reply)
        )
        if not is_answer or self._under_way is None:
            # Another connection may do better, as it may find another primary, or load the scripts.
            self._on_lost(RedisConnectionError(f"{reply!r:.200}"))
            return
        (call, answered), self._under_way = self._under_way, None
        is_refused = isinstance(reply, ResponseError)
        answered(refusal(call.script, call.keys, reply) if is_refused else reply)

    def _on_lost(self, error: Exception) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way[1](LinkDownError(str(error)))
