"""A request shard's scripts under a clock that the test sets, on any synchronous client.

The harness knows no rule of admission: it encodes operations with the production codec, calls the
composed scripts, decodes replies, and reads the keys as they stand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, assert_never

import fakeredis
import redis
from redis.client import PubSub
from redis.exceptions import ResponseError

from forebay.contracts.identity import (
    ProviderModelKey,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
)
from forebay.contracts.outcomes import (
    RateLimitScope,
    RequestOutcomeKind,
    RequestReleaseOutcome,
    TokenUsage,
)
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS, SCHEMA_VERSION, request_shard
from forebay.coordinator.requests import operations, registering, releasing
from forebay.coordinator.scripts.composing import FUNCTION_NOT_FOUND, Script, compose
from forebay.coordinator.server.membership import member_keys

CLOCK_KEY: Final = "fb:test:clock"
START_US: Final = 1_700_000_000_000_000
GENERATION: Final = "born"
RUN_ID: Final = "run"
PROCESS: Final = "web-1 4711 worker.py 0.1.0"
"""Which process a scripted member is."""
"""The run id of the tests' server, unless a test gives it another one."""
PROVIDER_MODEL: Final = ProviderModelKey(provider_name="acme", model_id="m")
DEAF_KEY: Final = "fb:test:deaf"
"""A set of the members to whom nobody listens; all others are listened to."""
FRAGMENTS: Final = {
    f"lib/{name}": (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
    for name in ("clock", "listening", "server_run_id")
}

AIMD: Final = RequestAdmissionConfig(tuning=RequestAdmissionTuningConfig(rule="aimd"))
"""The default here: its windows are born at the cap, so a test of the queue need not climb."""

CHAT, EMBEDDING, IMAGE = RequestDomain.CHAT, RequestDomain.EMBEDDING, RequestDomain.IMAGE


@dataclass(frozen=True, slots=True)
class Acquire:
    """Ask for a lease; ``wait`` is a timeout in seconds, None for ever, or "try"."""

    attempt_id: str
    domain: RequestDomain = CHAT
    group: str = "g"
    weight: float = 1.0
    wait: float | Literal["try"] | None = None
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Release:
    """Release a lease."""

    lease_id: str
    outcome: RequestOutcomeKind = RequestOutcomeKind.SUCCESS
    retry_after_seconds: float | None = None
    generation: str = GENERATION
    used: int | None = None
    scope: RateLimitScope | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Take an acquire back, whichever way it went."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class State:
    """Ask what became of an attempt."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class Register:
    """Register an alias with its cap and the resource's settings."""

    alias: str
    cap: int
    config: RequestAdmissionConfig = AIMD


@dataclass(frozen=True, slots=True)
class Learn:
    """Tell what headers said of a budget that arrived at an instant of the shard's clock."""

    reading: QuotaReading
    at_us: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """Look whether members have died."""


@dataclass(frozen=True, slots=True)
class AskShare:
    """Ask for the member's share, with the ticket of the last reply that it has."""

    known: int = 0


@dataclass(frozen=True, slots=True)
class Leave:
    """End the membership."""


Op = Acquire | Release | Cancel | State | Register | Learn | Leave | Sweep | AskShare
Notices = dict[str, list[list[Any]]]


def granted(notices: list[list[Any]]) -> list[str]:
    """Return the attempts that notices say were granted, in order."""
    return [notice[1] for notice in notices if notice[0] == "granted"]


class Refused(Exception):  # noqa: N818 - an error reply is an answer here
    """The script answered with an error."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code, _, self.detail = message.partition(" ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The reply of a batch, and what it pushed to other members."""

    now_us: int
    next_wake_us: int
    generation: str
    results: list[list[Any]]
    notices: list[list[Any]]
    raw: bytes


def encode(op: Op) -> Sequence[str | int | bytes]:  # noqa: PLR0911 - one per operation
    """Return an operation's arguments, as production encodes them."""
    match op:
        case Acquire():
            wait = "try" if op.wait == "try" else operations.wait_argument(op.wait)
            return operations.Acquire(_item(op), wait).encode()
        case Release():
            outcome = RequestReleaseOutcome(
                kind=op.outcome,
                retry_after_seconds=op.retry_after_seconds,
                scope=op.scope,
                usage=None if op.used is None else TokenUsage(input_tokens=op.used),
            )
            return releasing.Release(_lease(op), outcome).encode()
        case Cancel():
            return ("cancel", op.attempt_id)
        case State():
            return ("state", op.attempt_id)
        case Register():
            return registering.Register(op.alias, op.cap, op.config).encode()
        case Learn():
            return registering.Learn(op.reading, op.at_us).encode()
        case Leave():
            return ("leave",)
        case Sweep():
            return ("sweep",)
        case AskShare():
            return registering.AskShare(op.known).encode()
        case _:
            assert_never(op)


def _item(op: Acquire) -> RequestAdmissionItem:
    return RequestAdmissionItem(
        resource=RequestResourceKey(provider_model=PROVIDER_MODEL, domain=op.domain),
        group=RequestGroupSpec(key=op.group, weight=op.weight),
        attempt_id=op.attempt_id,
        cost=op.cost,
    )


def _lease(op: Release) -> RequestAdmissionLease:
    return RequestAdmissionLease(
        lease_id=op.lease_id,
        item=_item(Acquire(op.lease_id)),
        acquired_at=0.0,
        limit_at_admission=1,
        cuts_at_admission=0,
        effective_max=1,
        generation=op.generation,
        member_id="",
    )


@cache
def composed(name: str, fragments: tuple[tuple[str, str], ...]) -> Script:
    """Return a script with the tests' fragments in it, composed once."""
    return compose(name, dict(fragments))


def evaluate(client: redis.Redis, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
    """Call a script as production does; fakeredis has no functions, so it evaluates the text."""
    if isinstance(client, fakeredis.FakeRedis):
        return client.eval(script.text, len(keys), *keys, *args)
    try:
        return client.fcall(script.function, len(keys), *keys, *args)
    except ResponseError as error:
        if str(error) != FUNCTION_NOT_FOUND:
            raise
        client.function_load(script.library, replace=True)
        return client.fcall(script.function, len(keys), *keys, *args)


class ScriptedShard:
    """One request shard, driven call by call.

    Attributes:
        pushed: what the last call published, by member.
        generation: the shard's, once somebody joined.
    """

    def __init__(
        self,
        client: redis.Redis,
        fragments: Mapping[str, str] = FRAGMENTS,
        provider_model: ProviderModelKey = PROVIDER_MODEL,
    ) -> None:
        self.client = client
        self.keys = request_shard(provider_model)
        self.pushed: Notices = {}
        self.generation = ""
        self._fragments = tuple(fragments.items())
        self._numbers: dict[str, int] = {}
        self._channel_prefix = self.keys.wake_channel("")
        self._pubsub: PubSub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._pubsub.psubscribe(self._channel_prefix + "*")
        self._drain()
        self.set_clock(START_US)

    def close(self) -> None:
        """Give the subscriber's connection back."""
        self._pubsub.close()

    def stored_keys(self) -> set[str]:
        """Return the kinds of key that exist."""
        return {kind for kind in self.keys.kinds if self.client.exists(self.keys[kind])}

    def endless_keys(self) -> set[str]:
        """Return the kinds of key that exist and would never expire."""
        pipe = self.client.pipeline(transaction=False)
        for key in self.keys.all:
            pipe.ttl(key)
        return {
            kind for kind, ttl in zip(self.keys.kinds, pipe.execute(), strict=True) if ttl == -1
        }

    # -- time

    def set_clock(self, us: int) -> None:
        """Set the server's clock, backwards too."""
        self.server_us = us
        self.client.set(CLOCK_KEY, us)

    def advance(self, seconds: float) -> None:
        """Move the server's clock."""
        self.set_clock(self.server_us + round(seconds * 1e6))

    # -- calls

    def join(
        self,
        member: str,
        ttl_seconds: float = 15.0,
        generation: str = GENERATION,
        remembered: str = "",
    ) -> list[Any]:
        """Make a member, or confirm one of the generation ``remembered``.

        Returns:
            ``[now_us, generation, members, status, reason, run_id,
            batch_number]``.
        """
        ttl_us = round(ttl_seconds * 1e6)
        known = (generation, remembered, RUN_ID if remembered else "")
        args = (member, ttl_us, SCHEMA_VERSION, *known, KEEP_UNUSED_SHARD_MS, PROCESS)
        reply: list[Any] = json.loads(self.run("member/join", member_keys(self.keys), args))
        self.generation = reply[1]
        return reply

    def heartbeat(self, member: str, ttl_seconds: float = 15.0) -> list[int]:
        """Renew a membership; return ``[now_us, members]``."""
        args = (member, round(ttl_seconds * 1e6), KEEP_UNUSED_SHARD_MS)
        reply: list[int] = json.loads(self.run("member/heartbeat", member_keys(self.keys), args))
        return reply

    def batch(self, member: str, *ops: Op) -> Reply:
        """Run a member's next batch.

        Raises:
            Refused: an error reply.
        """
        number = self._numbers.get(member, 0) + 1
        self._numbers[member] = number
        return self.call(member, number, *ops)

    def call(self, member: str, number: int, *ops: Op) -> Reply:
        """Run a batch under a number of the test's choice.

        Raises:
            Refused: an error reply.
        """
        args: list[Any] = [member, number]
        for op in ops:
            args += encode(op)
        raw = self.run("requests/batch", self.keys.all, args)
        now_us, wake_us, generation, results, notices, _ = json.loads(raw)
        return Reply(
            now_us=now_us,
            next_wake_us=wake_us,
            generation=generation,
            results=results,
            notices=notices,
            raw=raw,
        )

    def raw_batch(self, member: str, *operations: Sequence[Any]) -> list[list[Any]]:
        """Run a batch of operations as they stand in ARGV, and return their results."""
        number = self._numbers[member] = self._numbers.get(member, 0) + 1
        args = [member, number, *(part for operation in operations for part in operation)]
        results: list[list[Any]] = json.loads(self.run("requests/batch", self.keys.all, args))[3]
        return results

    def try_batch(self, member: str, *ops: Op) -> bool:
        """Run a member's next batch; return whether the member was known."""
        try:
            self.batch(member, *ops)
        except Refused as refused:
            if refused.code != "NOMEMBER":
                raise
            return False
        return True

    def administer(
        self, operation: str, subject: str = "", schema: str = SCHEMA_VERSION
    ) -> list[int]:
        """Do an operator's operation; return ``[now_us, next_wake_us, value]``.

        Raises:
            Refused: an error reply.
        """
        args = (schema, operation, subject)
        reply: list[int] = json.loads(self.run("requests/administer", self.keys.all, args))
        return reply

    def open(self, cap: int, *members: str, config: RequestAdmissionConfig | None = None) -> None:
        """Make members, by default one called "m"; the first registers the resource."""
        for member in members or ("m",):
            self.join(member)
        register = Register("alias", cap, config or AIMD)
        self.batch((members or ("m",))[0], register)

    def beat_all(self, *members: str, ttl_seconds: float = 15.0) -> None:
        """Renew memberships."""
        for member in members:
            self.heartbeat(member, ttl_seconds)

    def ask(self, member: str, op: Op) -> list[Any]:
        """Run a batch of one operation and return its result."""
        return self.batch(member, op).results[0]

    def run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> bytes:
        """Run a script as it is composed for tests.

        Raises:
            Refused: an error reply.
        """
        script = composed(name, self._fragments)
        try:
            reply: bytes = evaluate(self.client, script, keys, args)
        except ResponseError as error:
            raise Refused(script.locate(str(error))) from error
        finally:
            self.pushed = self._drain()
        return reply

    def _drain(self) -> Notices:
        """Return what was published by now: a pong comes after all that was pushed before."""
        pushed: Notices = {}
        self._pubsub.ping()
        while True:
            message = self._pubsub.get_message(timeout=5.0)
            if message is None:
                continue
            if message["type"] == "pong":
                return pushed
            member = message["channel"].decode().removeprefix(self._channel_prefix)
            generation, notices = json.loads(message["data"])
            assert generation == self.generation or not notices  # or a new one is told
            pushed.setdefault(member, []).extend(notices)
