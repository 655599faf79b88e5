"""One connection that runs scripts, and what a server's refusal means.

Callers own no connection: cancelling one never cancels a command (spec 06, *Exactly once*).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import unquote

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from contracts.errors import (
    ConfigurationError,
    CoordinatorError,
    CoordinatorFull,
    ForebayError,
    SchemaMismatch,
)
from coordinator.scripts import FUNCTION_NOT_FOUND, Script
from coordinator.wire import Wire, command, open_wire, pack

_NAME_AND_COUNT: Final = 3
_PASSING: Final = frozenset({"TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "ASK", "MOVED"})


Arguments = Sequence[str | int | bytes]
Answered = Callable[[bytes | Exception], None]


class LinkDownError(Exception):
    """The connection broke before a reply came; the call may or may not have been carried out."""


class NotAMemberError(Exception):
    """The shard does not know this member, or no longer."""


def is_passing(error: ResponseError) -> bool:
    """Whether an error reply tells of a state that passes, such as a failover (spec 06)."""
    return isinstance(error, ReadOnlyError) or str(error).partition(" ")[0] in _PASSING


def refusal(script: Script, error: ResponseError) -> Exception:
    """Return the typed exception for a script's error reply: the one place that reads its code."""
    message = str(error)
    code, _, detail = message.partition(" ")
    if isinstance(error, OutOfMemoryError):
        return CoordinatorFull(
            "the server is out of memory and refuses new work; raise its maxmemory or free some."
            " What frees still works."
        )
    match code:
        case "NOMEMBER":
            return NotAMemberError(detail)
        case "SCHEMA":
            return SchemaMismatch(
                f"the shard has schema version {detail}, which this version of forebay cannot"
                " speak; upgrade the older members, or use another server."
            )
        case _:
            return CoordinatorError(
                f"script {script.name} failed: {script.locate(message)}; please report this."
            )


def refused_operation(code: str, detail: str) -> ForebayError:
    """Return the typed exception for one operation of a batch that was refused."""
    if code == "ATTEMPT_ID_USED":
        return ConfigurationError(
            f"attempt id {unquote(detail)!r} was used before; make one per attempt, or leave it"
            " out: RequestAdmissionItem makes its own."
        )
    return CoordinatorError(f"the shard refused an operation: {code} {detail}; please report this.")


class BoundScript:
    """A script with its keys, packed once.

    Args:
        script: what is run, as a function that the server keeps (ADR 0006).
        keys: its KEYS.
    """

    def __init__(self, script: Script, keys: Sequence[str]) -> None:
        self.script = script
        self._count = _NAME_AND_COUNT + len(keys)
        self._taking = pack(("FCALL", script.function, len(keys), *keys))
        self._freeing = pack(("FCALL", script.freeing_function, len(keys), *keys))

    def call(self, arguments: Arguments, *, is_freeing: bool) -> bytes:
        """Return a call as it travels; one that only frees runs in a server without memory too."""
        head = self._freeing if is_freeing else self._taking
        return b"*%d\r\n%b%b" % (self._count + len(arguments), head, pack(arguments))

    def load(self) -> bytes:
        """Return the command that brings the function to a server that does not know it."""
        return command("FUNCTION", "LOAD", "REPLACE", self.script.library)


class ScriptLink:
    """Runs scripts over one connection of its own, one call at a time.

    Args:
        client: whose pool makes the connection; without a socket timeout, as the caller bounds
            each call.
    """

    def __init__(self, client: aioredis.Redis) -> None:
        self._client = client
        self._wire: Wire | None = None
        self._under_way: tuple[BoundScript, bytes, Answered] | None = None
        self._is_loading = False

    @property
    def is_up(self) -> bool:
        """Whether there is a connection to send over."""
        return self._wire is not None

    async def connect(self) -> None:
        """Open the connection, where there is none.

        Raises:
            LinkDownError: the server could not be reached, or refused the login.
        """
        if self._wire is None:
            try:
                self._wire = await open_wire(self._client, self._on_reply, self._on_lost)
            except (RedisError, OSError) as error:
                raise LinkDownError(str(error)) from error

    def send(
        self,
        call: BoundScript,
        arguments: Arguments,
        answered: Answered,
        *,
        is_freeing: bool = False,
    ) -> None:
        """Send one call, after the one before has been answered.

        Args:
            call: the script.
            arguments: its ARGV.
            answered: told, once, the reply, or a LinkDownError after which a numbered call may be
                repeated, or what the script refused with: a NotAMemberError or CoordinatorError.
            is_freeing: whether it only gives back.
        """
        if self._wire is None:
            answered(LinkDownError("the connection is not open"))
            return
        packed = call.call(arguments, is_freeing=is_freeing)
        self._under_way = (call, packed, answered)
        self._wire.write(packed)

    async def run(self, script: Script, keys: Sequence[str], arguments: Arguments) -> bytes:
        """Run a script and return its reply.

        Raises:
            LinkDownError: the connection broke.
            NotAMemberError, CoordinatorError: the script refused.
        """
        reply: asyncio.Future[bytes | Exception] = asyncio.get_running_loop().create_future()

        def answered(answer: bytes | Exception) -> None:
            if not reply.done():
                reply.set_result(answer)

        self.send(BoundScript(script, keys), arguments, answered)
        answer = await reply
        if isinstance(answer, Exception):
            raise answer
        return answer

    def drop(self) -> None:
        """Close the connection; a call under way is answered with a LinkDownError."""
        self._on_lost(RedisConnectionError("the connection was dropped"))

    def _answer(self, answer: bytes | Exception) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way[2](answer)

    def _on_reply(self, reply: Any) -> None:
        if self._under_way is None or self._wire is None:
            self._on_lost(RedisConnectionError(f"unexpected {reply!r:.100}"))
            return
        call, packed, _answered = self._under_way
        if self._is_loading and isinstance(reply, bytes):
            self._is_loading = False
            self._wire.write(packed)
        elif isinstance(reply, bytes):
            self._answer(reply)
        elif isinstance(reply, ResponseError) and str(reply) == FUNCTION_NOT_FOUND:
            self._is_loading = True
            self._wire.write(call.load())
        elif isinstance(reply, ResponseError) and not is_passing(reply):
            self._is_loading = False
            self._answer(refusal(call.script, reply))
        else:
            self._on_lost(RedisConnectionError(str(reply)))  # another connection may do better

    def _on_lost(self, error: Exception) -> None:
        wire, self._wire = self._wire, None
        self._is_loading = False
        if wire is not None:
            wire.close()
        self._answer(LinkDownError(str(error)))
