"""A request shard whose clock stands still, on fakeredis and on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import fakeredis
import pytest
import redis

from forebay.contracts.identity import (
    ProviderModelKey,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
)
from forebay.contracts.requests import RequestAdmissionItem
from forebay.contracts.settings import RequestAdmissionConfig
from forebay.contracts.snapshots import AuditReport, GlobalSnapshot
from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS, SCHEMA_VERSION, request_shard
from forebay.coordinator.requests.operations import Acquire
from forebay.coordinator.requests.registering import Register
from forebay.coordinator.requests.snapshots import decode_audit, decode_capture
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.membership import member_keys
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.shard.operation import Args
from tests.support_scripts import FRAGMENTS, PROCESS, composed

SERVERS: Final = ("fakeredis", "server")
CLOCK_KEY = "test:clock"
CLOCK = f"local function server_time_us() return tonumber(redis.call('GET', '{CLOCK_KEY}')) end\n"
UNDER_CLOCK = {**FRAGMENTS, "lib/clock": CLOCK}
"""What stands in for fragments: a clock that stands still, and who is listened to."""
START_US = 1_795_482_385_033_913
"""Sixteen digits, so that a number that lost its last ones is seen."""
SECOND_US = 1_000_000
TTL_US = 15 * SECOND_US
LARGE = ProviderModelKey(provider_name="local", model_id="mock/large {1}")


class Shard:
    """One shard under a clock that stands still until it is moved."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.keys = request_shard(LARGE)
        self.batches: dict[str, int] = {}
        client.set(CLOCK_KEY, START_US)

    def pass_time(self, seconds: float) -> None:
        self.client.incrby(CLOCK_KEY, round(seconds * SECOND_US))

    def run(self, name: str, *args: Any, fragments: dict[str, str] | None = None) -> Any:
        text = composed(name, tuple((UNDER_CLOCK | (fragments or {})).items())).text
        return self.client.eval(text, len(self.keys.all), *self.keys.all, *args)

    def join(self, member_id: str) -> None:
        text = composed("member/join", tuple(UNDER_CLOCK.items())).text
        keys = member_keys(self.keys)
        args = (member_id, str(TTL_US), SCHEMA_VERSION, "born", "", "")
        self.client.eval(text, len(keys), *keys, *args, str(KEEP_UNUSED_SHARD_MS), PROCESS)

    def batch(self, member_id: str, *operations: Args) -> list[Any]:
        number = self.batches[member_id] = self.batches.get(member_id, 0) + 1
        args = [part for operation in operations for part in operation]
        reply: list[Any] = json.loads(self.run("requests/batch", member_id, number, *args))
        return reply

    def register(self, member_id: str, cap: int, alias: str = "main", **config: Any) -> None:
        self.batch(member_id, Register(alias, cap, RequestAdmissionConfig(**config)).encode())

    def acquire(
        self,
        member_id: str,
        attempt_id: str,
        group: str = "main",
        *,
        weight: float = 1.0,
        wait: str = "",
        domain: RequestDomain = RequestDomain.CHAT,
    ) -> str:
        item = RequestAdmissionItem(
            resource=RequestResourceKey(provider_model=LARGE, domain=domain),
            group=RequestGroupSpec(key=group, weight=weight),
            attempt_id=attempt_id,
        )
        return str(self.batch(member_id, Acquire(item, wait).encode())[3][0][0])

    def release(self, member_id: str, lease_id: str, outcome: str = "success") -> None:
        self.batch(member_id, ("release", lease_id, outcome, 0, "born", "", ""))

    def snapshot(self, max_rows: int = 100) -> GlobalSnapshot:
        return decode_capture(LARGE, self.run("requests/snapshot", max_rows))

    def audit(self, fragments: dict[str, str] | None = None) -> AuditReport:
        return decode_audit(self.run("requests/audit", "json", fragments=fragments))

    def look(self, question: str, rows: int = 100) -> list[str]:
        """Return the answer to an operator's question about the shard."""
        return [line.decode() for line in self.run("requests/look", question, rows)]

    def show(self) -> list[str]:
        return self.look("show")


def open_shard(request: pytest.FixtureRequest) -> Iterator[Shard]:
    """The body of a fixture whose parameters are ``SERVERS``."""
    client: redis.Redis
    if request.param == "fakeredis":
        client = fakeredis.FakeRedis(version=(7, 0))
    else:
        client = open_sync(parse_url(request.getfixturevalue("redis_url")))
    with client:
        yield Shard(client)


def make_busy(shard: Shard) -> Shard:
    """Two members, four leases of a cap of 4 in two domains, three waiters in two groups."""
    for member_id, alias, cap in (("m1", "fast", 4), ("m2", "slow one", 6)):
        shard.join(member_id)
        shard.register(member_id, cap, alias, max_hold_seconds=60)
    for attempt_id in ("a1", "a2", "a3"):
        assert shard.acquire("m1", attempt_id) == "granted"
    assert shard.acquire("m2", "b1", domain=RequestDomain.EMBEDDING) == "granted"
    assert shard.acquire("m1", "a4", "run 7", weight=2, wait="5000000") == "waiting"
    assert shard.acquire("m2", "b2", "run 7", weight=2) == "waiting"
    assert shard.acquire("m2", "b3", "other") == "waiting"
    return shard
