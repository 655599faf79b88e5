"""Which process a member is can be read from the shard and its events (issue 19.1)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from forebay.coordinator.process_identity import process_identity
from tests.contract.pool_under_clock import Pool, honest_pool
from tests.contract.shard_under_clock import (
    SERVERS,
    START_US,
    TTL_US,
    Shard,
    make_busy,
    open_shard,
)

WORDS = {"host": "web-1", "pid": "4711", "program": "worker.py", "version": "0.1.0"}


@pytest.fixture(params=SERVERS)
def shard(request: pytest.FixtureRequest) -> Iterator[Shard]:
    for shard in open_shard(request):
        yield make_busy(shard)


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", submission=1)
        yield pool


def named(shard: Shard | Pool) -> list[bytes]:
    return [name for name in shard.client.hkeys(shard.keys["meta"]) if name.startswith(b"member:")]


def test_snapshot_says_which_process_a_member_is(shard: Shard) -> None:
    member = shard.snapshot().members[0]

    assert (member.host, member.pid, member.program, member.version, member.since) == (
        "web-1", 4711, "worker.py", "0.1.0", START_US / 1e6
    )  # fmt: skip
    assert "worker.py" in " ".join(shard.show())


def test_member_that_joins_again_keeps_since_when_it_is_one(shard: Shard) -> None:
    shard.pass_time(1)
    shard.join("m1")

    assert shard.snapshot().members[0].since == START_US / 1e6


def test_member_that_a_rebuild_found_alone_is_of_an_unknown_process(shard: Shard) -> None:
    shard.client.hdel(shard.keys["meta"], "member:m1")
    found = {member.member_id: member for member in shard.snapshot().members}

    assert (found["m1"].host, found["m1"].pid, found["m1"].since) == (None, None, None)
    assert found["m2"].host == "web-1"
    assert shard.show()


def test_events_of_a_members_begin_and_end_name_its_process(pool: Pool) -> None:
    assert "worker.py" in " ".join(pool.show())
    pool.join("late")
    for _ in range(2):
        pool.pass_time(TTL_US / 2e6)
        pool.beat("late")
    pool.admit(1, by="late")

    told = [event for event in pool.events() if event.get("member_id") == "m"]
    kinds = ("member_joined", "member_expired")
    assert [{name: event[name] for name in WORDS} for event in told if event["kind"] in kinds] == [
        WORDS
    ] * 2
    assert named(pool) == [b"member:late"]
    assert pool.audit().ok


def test_audit_names_a_process_of_a_member_that_is_gone(shard: Shard) -> None:
    shard.client.hset(shard.keys["meta"], "member:gone", "web-2 1 worker.py 0.1.0 1")

    assert not shard.audit().ok


def test_a_process_tells_host_pid_and_program_without_its_arguments() -> None:
    host, pid, program, version = process_identity().split(" ")

    assert (host, pid) == (socket.gethostname()[:64], str(os.getpid()))
    assert program
    assert "%2F" not in program
    assert version[0].isdigit()
