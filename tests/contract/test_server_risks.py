"""A server that may lose what it was given is warned of on joining: once, from INFO alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

import forebay
from forebay.coordinator.server.address import TcpAddress
from forebay.coordinator.server.condition import eviction_risk, persistence_risk, warn_of_risks
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.rights import MEMBER_RULES
from forebay.coordinator.server.urls import parse_url
from tests.contract.chat_domain import MODEL, item

LOSES_ALL = {"maxmemory-policy": "allkeys-lru", "appendonly": "no"}
RISKS = ["server_may_evict_keys", "server_persists_nothing"]
SAFE = {"maxmemory_policy": "noeviction", "aof_enabled": 1}


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


def set_up(url: str, **_: Any) -> None:
    """Make a server one that loses all, and a user of it with the rights of a member alone."""
    with open_sync(parse_url(url)) as admin:
        for name, value in LOSES_ALL.items():
            admin.config_set(name, value)
        admin.execute_command("ACL", "SETUSER", "member", "on", ">pw", *MEMBER_RULES)


def as_member(url: str) -> str:
    return url.replace("unix://", "unix://member:pw@")


@asynccontextmanager
async def a_member(url: str) -> AsyncIterator[Any]:
    async with forebay.connect(url) as requests:
        await requests.register(MODEL, "main", 4)
        lease = await requests.acquire(item())
        yield requests
        await requests.release(lease, forebay.SUCCESS)


def risks_in(logs: list[Any]) -> list[Any]:
    return [line for line in logs if line["event"] in RISKS]


async def test_joining_warns_once_in_a_process_of_a_server_that_loses_all(
    own_server: EmbeddedServer,
) -> None:
    set_up(own_server.url)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            async with a_member(as_member(own_server.url)):
                pass
    told = risks_in(logs)
    assert [line["event"] for line in told] == RISKS
    assert {line["log_level"] for line in told} == {"warning"}
    assert "allkeys-lru" in told[0]["fault"]
    assert "appendonly" in told[1]["remedy"]
    assert "pw" not in repr(told).replace("***", "")


async def test_joining_the_embedded_server_warns_of_nothing(own_server: EmbeddedServer) -> None:
    with structlog.testing.capture_logs() as logs:
        async with a_member(own_server.url):
            pass
    assert risks_in(logs) == []


async def test_looking_at_a_server_warns_of_nothing(own_server: EmbeddedServer) -> None:
    set_up(own_server.url)
    with structlog.testing.capture_logs() as logs:
        async with forebay.connect(own_server.url):
            pass
    assert risks_in(logs) == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "volatile-ttl", "volatile-lru"])
def test_every_policy_that_evicts_is_a_risk(policy: str) -> None:
    risk = eviction_risk(SAFE | {"maxmemory_policy": policy})
    assert risk is not None
    assert policy in risk.fault


@pytest.mark.parametrize("info", [SAFE, {}, {"aof_enabled": 0, "rdb_saves": 3}])
def test_a_server_that_keeps_its_keys_or_hides_its_policy_is_no_risk(info: dict[str, Any]) -> None:
    assert eviction_risk(info) is None
    assert persistence_risk(info) is None


@pytest.mark.parametrize(
    "sign",
    [
        {"aof_enabled": 1},
        {"rdb_saves": 1},
        {"rdb_last_load_keys_loaded": 5},
        {"connected_slaves": 1},
    ],
)
def test_each_sign_of_persistence_is_enough(sign: dict[str, int]) -> None:
    nothing = {"aof_enabled": 0, "rdb_saves": 0, "rdb_last_load_keys_loaded": 0}
    assert persistence_risk(nothing) is not None
    assert persistence_risk(nothing | sign) is None


def test_each_server_is_warned_of() -> None:
    with structlog.testing.capture_logs() as logs:
        for host in ("one.risks.example", "other.risks.example", "one.risks.example"):
            warn_of_risks({"maxmemory_policy": "allkeys-lru"}, TcpAddress(host=host))
    assert [line["server"] for line in logs] == [
        "redis://one.risks.example:6379/0",
        "redis://other.risks.example:6379/0",
    ]
