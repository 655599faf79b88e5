"""Servers that no member can use are refused at once, in one sentence with what to use."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

import forebay
from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.server.address import TcpAddress
from forebay.coordinator.server.embedded_files import find_server_binary
from forebay.coordinator.server.version import require_single
from forebay.workers.arq.health import read_health
from tests.support import wait_until

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind((HOST, 0))
        port: int = reserved.getsockname()[1]
    return port


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, redis.Redis]]:
    """A cluster of one node, which has every slot."""
    port, bus = free_port(), free_port()
    options = {"bind": HOST, "port": port, "dir": tmp_path, "cluster-port": bus, "save": ""}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [str(find_server_binary()), *words, "--cluster-enabled", "yes"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as node,
        redis.Redis(host=HOST, port=port) as client,
    ):
        yield f"redis://{HOST}:{port}", client
        node.terminate()


async def use(what: str, url: str) -> None:
    match what:
        case "requests":
            async with forebay.connect(url):
                pass
        case "worker":
            await forebay.open_worker(url)
        case "health":
            await read_health(url, "key")
        case _:
            await forebay.create_pool(url)


@pytest.mark.parametrize("what", ["requests", "worker", "health", "pool"])
async def test_a_cluster_is_refused_with_what_to_use_for_pools_and_shards(
    cluster: tuple[str, redis.Redis], what: str
) -> None:
    url, client = cluster

    async def is_whole() -> bool:
        try:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        except redis.ConnectionError:
            return False
        except redis.ResponseError:  # a slot is already busy: with this node
            return True
        return False

    await wait_until(is_whole)
    with pytest.raises(ConfigurationError) as refusal:
        await use(what, url)
    said = str(refusal.value)
    assert said.startswith(f"the server at {url}/0 is a node of a cluster, expected one with")
    assert f"for requests alone write {url.replace('://', '+cluster://')}," in said
    assert "give task pools the URL of a server outside cluster mode" in said


@pytest.mark.parametrize("field", ["redis_mode", "server_mode"])
@pytest.mark.parametrize(
    ("mode", "word"), [("cluster", "cluster-enabled no"), ("sentinel", "is a Sentinel")]
)
def test_the_mode_is_read_from_redis_and_valkey(field: str, mode: str, word: str) -> None:
    address = TcpAddress(host="example.org", password="hunter2")
    with pytest.raises(ConfigurationError, match=word) as refusal:
        require_single({field: mode}, address)
    assert "hunter2" not in str(refusal.value)
    require_single({field: "standalone"}, address)
