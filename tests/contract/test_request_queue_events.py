"""A queue is an event once it has lasted for a second: the last events show what moved a window."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.shard_under_clock import SERVERS, START_US, Shard, open_shard


@pytest.fixture(params=SERVERS)
def shard(request: pytest.FixtureRequest) -> Iterator[Shard]:
    for shard in open_shard(request):
        shard.join("m")
        shard.register("m", 1)
        assert shard.acquire("m", "a") == "granted"
        yield shard
        assert shard.audit().differences == ()


def told(shard: Shard) -> list[dict[str, str]]:
    """Return the events of queues, in order."""
    found = [
        {name.decode(): value.decode() for name, value in fields.items()}
        for _id, fields in shard.client.xrange(shard.keys["events"])
    ]
    return [event for event in found if event["kind"].startswith("request_queue_")]


def test_queue_of_a_moment_is_no_event(shard: Shard) -> None:
    for turn in range(3):
        assert shard.acquire("m", f"b{turn}") == "waiting"
        shard.pass_time(0.9)
        shard.release("m", "a" if turn == 0 else f"b{turn - 1}")

    assert told(shard) == []


def test_queue_that_lasts_is_told_once_with_since_when_and_again_when_it_drains(
    shard: Shard,
) -> None:
    assert shard.acquire("m", "b") == "waiting"
    shard.pass_time(1)
    for name in ("c", "d"):
        assert shard.acquire("m", name) == "waiting"
    [formed] = told(shard)
    assert (formed["kind"], formed["since_us"]) == ("request_queue_formed", str(START_US))

    shard.pass_time(1)
    for name in ("a", "b", "c"):
        shard.release("m", name)
    assert [event["kind"] for event in told(shard)] == [
        "request_queue_formed",
        "request_queue_drained",
    ]
    assert told(shard)[-1]["lasted_us"] == "2000000"


def test_queue_that_lasted_unseen_is_told_when_it_drains(shard: Shard) -> None:
    assert shard.acquire("m", "b") == "waiting"
    shard.pass_time(3)
    shard.release("m", "a")

    assert [event["kind"] for event in told(shard)] == [
        "request_queue_formed",
        "request_queue_drained",
    ]
