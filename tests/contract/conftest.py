"""Fixtures of contract tests: the scripts on fakeredis and on a real server, under a test clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import fakeredis
import pytest
import redis

from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.support_scripts import ScriptedShard


def _client(request: pytest.FixtureRequest) -> redis.Redis:
    if request.param == "fakeredis":
        return fakeredis.FakeRedis(version=(7,))
    return open_sync(parse_url(request.getfixturevalue("redis_url")))


@pytest.fixture(params=["fakeredis", "server"])
def shard(request: pytest.FixtureRequest) -> Iterator[ScriptedShard]:
    """An empty request shard that nobody joined, on each kind of server."""
    with _client(request) as client:
        shard = ScriptedShard(client)
        yield shard
        shard.close()


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[ServerConnection]:
    """This process's connection to an empty real server."""
    async with await ServerConnection.open(redis_url) as connection:
        yield connection
