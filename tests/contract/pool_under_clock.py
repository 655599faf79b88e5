"""A task pool whose clock stands still, on fakeredis and on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import fakeredis
import pytest
import redis

from forebay.contracts.snapshots import AuditReport
from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS, SCHEMA_VERSION, pool_shard
from forebay.coordinator.requests.snapshots import decode_audit
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.membership import member_keys
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.tasks.names import parse_signature
from tests.contract.shard_under_clock import CLOCK_KEY, SECOND_US, START_US, TTL_US, UNDER_CLOCK
from tests.support_records import read_record
from tests.support_scripts import PROCESS, composed, evaluate

START_MS = START_US // 1000
ONE = "submission=1"
MODEL = "request:p/m=1,submission=1"
OTHER = "request:p/other=1,submission=1"
GPU = "gpu=1,submission=1"
THREE_GPUS = "gpu=3,submission=1"
LIMITS = {"submission": 100, "request:p/m": 4, "request:p/other": 4}

policies = pytest.mark.parametrize("policy", ["", "borrow"])
"""Of a test of what both policies do."""


class Admitted(NamedTuple):
    """What a member is answered that asks for tasks."""

    leases: list[list[str]]
    pushed: list[list[Any]]
    queued: int
    reasons: dict[str, int]
    expired: list[str]
    events: str
    lost: list[list[str]]


def submission(
    task_id: str,
    group: str = "g",
    asks: str = ONE,
    *,
    weight: float = 1,
    limit: object = "",
    not_before_us: object = "",
    function: str = "",
    ttl_ms: object = "",
    payload: bytes = b"",
) -> tuple[Any, ...]:
    """Return the operation that submits a task."""
    payload = payload or f"payload of {task_id}".encode()
    terms = (group, weight, limit, asks, not_before_us, payload, ttl_ms, function, 0)
    return ("submit", task_id, *terms)


def demand(slots: int = 1, hints: str = "", seen: object = "") -> tuple[Any, ...]:
    """Return the operation that asks for tasks."""
    return ("admit", slots, 60_000, hints, seen)


class Pool:
    """One pool under a clock that stands still until it is moved."""

    def __init__(self, client: Any, name: str = "main") -> None:
        self.client = client
        self.keys = pool_shard(name)
        self.batches: dict[str, int] = {}
        self.next_wake_us = 0
        self.notices: list[Any] = []
        self.payloads: list[bytes] = []
        self._listener = self.client.pubsub(ignore_subscribe_messages=True)
        client.set(CLOCK_KEY, START_US, nx=True)

    def close(self) -> None:
        self._listener.close()

    def pass_time(self, seconds: float) -> None:
        self.client.incrby(CLOCK_KEY, round(seconds * SECOND_US))

    def run(self, name: str, *args: Any, fragments: dict[str, str] | None = None) -> Any:
        return self._run(name, self.keys.all, args, UNDER_CLOCK | (fragments or {}))

    def _run(
        self, name: str, keys: list[str], args: tuple[Any, ...], fragments: dict[str, str]
    ) -> Any:
        script = composed(name, tuple(fragments.items()))
        try:
            return evaluate(self.client, script, keys, args)
        except redis.ResponseError as error:
            raise redis.ResponseError(script.locate(str(error))) from error

    def administer(self, name: str, keys: list[str], arguments: tuple[Any, ...]) -> Any:
        """Run a script that is no member's."""
        return self._run(name, keys, arguments, UNDER_CLOCK)

    def join(self, *member_ids: str, ttl_us: int = TTL_US) -> None:
        for member_id in member_ids:
            args = (
                member_id,
                ttl_us,
                SCHEMA_VERSION,
                "born",
                "",
                "",
                KEEP_UNUSED_SHARD_MS,
                PROCESS,
            )
            self._run("member/join", member_keys(self.keys), args, UNDER_CLOCK)

    def confirm(self, member_id: str, ttl_us: int = TTL_US) -> str:
        """Ask as a member that connects again; return what it is to the pool."""
        args = (
            member_id,
            ttl_us,
            SCHEMA_VERSION,
            "anew",
            "born",
            "",
            KEEP_UNUSED_SHARD_MS,
            PROCESS,
        )
        reply = self._run("member/join", member_keys(self.keys), args, UNDER_CLOCK)
        _now_us, generation, _members, status, *_rest = json.loads(reply)
        assert generation == "born"
        return str(status)

    def join_again(self, member_id: str, remembered: str, *, generation: str) -> list[Any]:
        """Let a member of a generation ask whether it is one, and return the answer."""
        args = (member_id, TTL_US, SCHEMA_VERSION, generation, remembered, "run")
        argv = (*args, KEEP_UNUSED_SHARD_MS, PROCESS)
        return list(json.loads(self._run("member/join", member_keys(self.keys), argv, UNDER_CLOCK)))

    def beat(self, member_id: str, ttl_us: int = TTL_US) -> None:
        args = (member_id, ttl_us, KEEP_UNUSED_SHARD_MS)
        self._run("member/heartbeat", member_keys(self.keys), args, UNDER_CLOCK)

    def ask(self, member_id: str, name: str, *args: Any) -> list[Any]:
        """Run one operation as a batch of its own and return its result."""
        return self.ask_all(member_id, (name, *args))[0]

    def ask_all(self, member_id: str, *operations: tuple[Any, ...]) -> list[list[Any]]:
        """Run operations as one batch and return their results."""
        number = self.batches[member_id] = self.batches.get(member_id, 0) + 1
        argv = [part for name, *args in operations for part in (name, len(args), *args)]
        reply = self.run("tasks/batch", member_id, number, *argv)
        text, *self.payloads = reply if isinstance(reply, list) else [reply]
        _now, self.next_wake_us, _generation, results, self.notices, _ = json.loads(text)
        return list(results)

    def open(self, *member_ids: str, **limits: int) -> None:
        """Make members; the first one sets limits, by default those of LIMITS."""
        self.join(*member_ids)
        for resource, limit in (LIMITS | limits).items():
            self.ask(member_ids[0], "claim", resource, "pool", limit)

    def submit(
        self,
        task_id: str,
        group: str = "g",
        asks: str = ONE,
        *,
        by: str = "m",
        delay_us: int = 0,
        **terms: Any,
    ) -> list[Any]:
        if delay_us:
            terms["not_before_us"] = int(self.client.get(CLOCK_KEY)) + delay_us
        return self.ask(by, *submission(task_id, group, asks, **terms))

    def submit_many(self, group: str, count: int, asks: str = ONE, **terms: Any) -> None:
        """Submit tasks that are called by their group and a number from 0."""
        for i in range(count):
            assert self.submit(f"{group}{i}", group, asks, **terms) == ["accepted"]

    def put_behind(self, group: str, turns: int = 1000) -> None:
        """Let a group stand behind all that had fewer turns."""
        self.submit(f"turn of {group}", group, weight=1 / turns)
        (lease,) = self.admit(1)
        self.finish(lease)

    def admit(self, slots: int = 1, by: str = "m", hints: str = "") -> list[str]:
        """Return the ids of the leases that were granted."""
        return [lease[0] for lease in self.ask_for(slots, by, hints=hints).leases]

    def ask_for(
        self, slots: int = 1, by: str = "m", *, hints: str = "", seen: object = ""
    ) -> Admitted:
        """Ask for tasks and return the whole answer."""
        _word, *terms = self.ask(by, *demand(slots, hints, seen))
        return Admitted(*terms)

    def finish_and_admit(self, lease_id: str, slots: int = 1) -> list[str]:
        """Finish a task and ask for others in one batch, as workers do."""
        finish = ("finish", lease_id, b"", "", "")
        _released, admitted = self.ask_all("m", finish, demand(slots))
        return [lease[0] for lease in admitted[1]]

    def discard(self, task_id: str, by: str = "m") -> list[Any]:
        return self.ask(by, "discard", task_id, b"", "")

    def configure(
        self, policy: str = "", reserve_after_us: int = 0, max_losses: int = 3, **settings: Any
    ) -> None:
        fields = [part for pair in settings.items() for part in pair]
        self.ask("m", "configure", policy, reserve_after_us, "", max_losses, *fields)

    def finish(self, lease_id: str, *cells: Any, by: str = "m", result: bytes = b"done") -> str:
        return str(self.ask(by, "finish", lease_id, result, 5000, "", *cells)[0])

    def listen(self, member_id: str) -> None:
        self._listener.subscribe(self.keys.wake_channel(member_id))
        self.heard()

    def listen_to_all(self) -> None:
        self._listener.psubscribe(self.keys.wake_channel("*"))
        self.heard()

    def woken(self) -> list[str]:
        """Return the members that were told of work by channel since the last look."""
        return [member for member, told in self.told().items() if ["work"] in told]

    def told(self) -> dict[str, list[Any]]:
        """Return what each member was told by channel since the last look."""
        before = len(self.keys.wake_channel(""))
        told: dict[str, list[Any]] = {}
        for channel, notices in self._messages():
            told.setdefault(channel[before:], []).extend(notices)
        return told

    def stored(self) -> dict[str, Any]:
        """Return all that is stored of the pool, but for what each call moves."""
        read = {
            b"hash": self.client.hgetall,
            b"zset": lambda key: self.client.zrange(key, 0, -1, withscores=True),
            b"stream": self.client.xrange,
        }
        kinds = ((kind, self.keys[kind]) for kind in self.keys.kinds)
        found = {
            kind: read[self.client.type(key)](key) for kind, key in kinds if self.client.exists(key)
        }
        meta = {name: value for name, value in found["meta"].items() if not name.startswith(b"@")}
        record = read_record(self.client, self.keys)
        for name in ("now_us", "last_us"):
            record.pop(name)
        return found | {"meta": meta | {b"record": record}}

    def endless_keys(self) -> set[str]:
        """Return the kinds of key that exist and would never expire."""
        pipe = self.client.pipeline(transaction=False)
        for key in self.keys.all:
            pipe.ttl(key)
        return {
            kind for kind, ttl in zip(self.keys.kinds, pipe.execute(), strict=True) if ttl == -1
        }

    def heard(self) -> list[Any]:
        """Return what members were told by channel since the last look."""
        return [told for _channel, told in self._messages()]

    def _messages(self) -> list[tuple[str, list[Any]]]:
        """Return what was published: a pong comes after all that was said before."""
        told = []
        self._listener.ping()
        while (message := self._listener.get_message(timeout=5)) is None or (
            message["type"] != "pong"
        ):
            if message is not None:
                told.append((message["channel"].decode(), json.loads(message["data"])[1]))
        return told

    def arq(self, task_id: str) -> set[str]:
        """Return which of arq's keys a task has."""
        kinds = ("job", "in-progress", "retry", "result")
        found = {kind for kind in kinds if self.client.exists(f"arq:{kind}:{task_id}")}
        queued = self.client.zscore(self.keys["queue"], task_id)
        return found | ({"queue"} if queued is not None else set())

    def count(self, name: str) -> int:
        return int(read_record(self.client, self.keys).get(name, "0"))

    def first(self) -> str:
        """Return the task that stands first without fitting; empty for none."""
        return read_record(self.client, self.keys).get("first_task", "")

    def debts(self, group: str) -> dict[str, int]:
        """Return what a group owes, by resource."""
        owed = self.client.hget(self.keys["groups"], group).decode().split("|")[13]
        return parse_signature(owed)

    def capture(self) -> dict[str, Any]:
        """Return the pool's snapshot as it is sent."""
        return dict(json.loads(self.run("tasks/snapshot", 100)))

    def reasons(self) -> dict[str, int]:
        """Return why groups are held back now."""
        return dict(self.capture()["reasons"])

    def events(self) -> list[dict[str, str]]:
        """Return what was written down, in order."""
        return [
            {name.decode(): value.decode() for name, value in fields.items()}
            for _id, fields in self.client.xrange(self.keys["events"])
        ]

    def audit(self, fragments: dict[str, str] | None = None) -> AuditReport:
        return decode_audit(self.run("tasks/audit", "json", fragments=fragments))

    def look(self, question: str, rows: int = 100) -> list[str]:
        """Return the answer to an operator's question about the pool."""
        return [line.decode() for line in self.run("tasks/look", question, rows)]

    def show(self) -> list[str]:
        return self.look("show")


def task_of(lease_id: str) -> str:
    return lease_id.rsplit("~", 1)[0]


def tasks_of(lease_ids: list[str]) -> list[str]:
    return [task_of(lease_id) for lease_id in lease_ids]


def open_pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """The body of a fixture whose parameters are ``SERVERS``."""
    client: redis.Redis
    if request.param == "fakeredis":
        client = fakeredis.FakeRedis(version=(7, 0))
    else:
        client = open_sync(parse_url(request.getfixturevalue("redis_url")))
    with client:
        pool = Pool(client)
        yield pool
        pool.close()


def honest_pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """The same, for tests that must leave books that agree."""
    for pool in open_pool(request):
        yield pool
        assert pool.audit().differences == ()
