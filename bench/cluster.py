"""``python -m bench cluster``: a pair on three masters, beside one server with a replica."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import redis

import forebay
from bench.shared_capacity.children import free_port
from forebay.coordinator.server.embedded_files import find_server_binary
from tests.support_cluster import running_cluster

MODELS: Final = [
    forebay.ProviderModelKey(provider_name=f"provider{n}", model_id="model") for n in range(30)
]
CASES: Final = {
    "a lone pair": (MODELS[:1], 1, 1500),
    "30 provider/models, 1 in flight each": (MODELS, 1, 200),
    "30 provider/models, 16 in flight each": (MODELS, 16, 40),
}
"""Provider/models, callers of each, and pairs of a caller."""

Costs = dict[str, float]


@click.command()
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(min=1))
def cluster(rounds: int) -> None:
    """Compare a pair (acquire and release) on a cluster with one on a single server.

    The cluster has three masters and three replicas, the server one replica. They take turns; each
    figure is the median of the rounds' ratios, cluster to server, in microseconds a pair:
    CPU time of this process, CPU time of the masters, time inside their functions, time on the
    wall. The last figure is the share of all pairs that the busiest master has.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        url, server = stack.enter_context(_server_with_replica(Path(folder) / "server"))
        nodes = stack.enter_context(running_cluster(Path(folder)))
        masters = [node.client for node in nodes.masters]
        for name, (models, callers, pairs) in CASES.items():
            found = [
                (
                    _measure(url, [server], models, callers, pairs),
                    _measure(nodes.url, masters, models, callers, pairs),
                )
                for _ in range(rounds)
            ]
            click.echo(name)
            for figure in ("client", "server", "functions", "wall"):
                ratio = statistics.median(many[figure] / one[figure] for one, many in found)
                alone = statistics.median(one[figure] for one, _many in found)
                many = statistics.median(many[figure] for _one, many in found)
                click.echo(f"  {figure:10} {ratio:5.2f}   {many:6.1f} us beside {alone:6.1f} us")
            busiest = statistics.median(many["busiest"] for _one, many in found)
            click.echo(f"  {'busiest':10} {busiest:5.0%}")


@contextlib.contextmanager
def _server_with_replica(folder: Path) -> Iterator[tuple[str, redis.Redis]]:
    """Start a server and its replica; yield its URL and a client of it."""
    ports = [free_port(), free_port()]
    started = []
    try:
        for port, more in zip(
            ports, ([], ["--replicaof", "127.0.0.1", str(ports[0])]), strict=True
        ):
            own = folder / str(port)
            own.mkdir(parents=True)
            words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(own)]
            command = [str(find_server_binary()), *words, *more]
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        with redis.Redis(port=ports[0]) as client:
            _wait_for_replica(client)
            yield f"redis://127.0.0.1:{ports[0]}", client
    finally:
        for process in started:
            process.kill()
            process.wait()


def _wait_for_replica(client: redis.Redis) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError):
            replicas: Any = client.wait(1, 1000)
            if replicas == 1:
                return
        time.sleep(0.05)
    raise click.ClickException("the server's replica has not connected within 30 s.")


def _measure(
    url: str, clients: Sequence[redis.Redis], models: Any, callers: int, pairs: int
) -> Costs:
    """Make pairs; return what one cost, in microseconds."""
    before = [_spent(client) for client in clients]
    own, wall = asyncio.run(_call(url, models, callers, pairs))
    spent = [
        (cpu - cpu_before, inside - inside_before)
        for (cpu, inside), (cpu_before, inside_before) in zip(
            (_spent(client) for client in clients), before, strict=True
        )
    ]
    number = len(models) * callers * pairs
    inside = sum(each for _cpu, each in spent)
    return {
        "client": own / number,
        "server": sum(each for each, _inside in spent) / number,
        "functions": inside / number,
        "wall": wall / number,
        "busiest": max(each for _cpu, each in spent) / inside,
    }


def _spent(client: redis.Redis) -> tuple[float, float]:
    """Return a server's CPU time and the time inside its functions, in microseconds."""
    cpu: Any = client.info("cpu")
    calls: Any = client.info("commandstats")
    inside = sum(each["usec"] for name, each in calls.items() if name.startswith("cmdstat_fcall"))
    return 1e6 * (float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])), float(inside)


async def _call(url: str, models: Any, callers: int, pairs: int) -> tuple[float, float]:
    """Make pairs of all callers; return the CPU time and the time on the wall, in microseconds."""
    async with forebay.connect(url) as requests:
        for model in models:
            await requests.register(model, "bench", max_parallel_requests=64)

        async def call(model: forebay.ProviderModelKey) -> None:
            resource = forebay.RequestResourceKey(provider_model=model)
            for _ in range(pairs):
                lease = await requests.acquire(forebay.RequestAdmissionItem(resource=resource))
                await requests.release(lease, forebay.SUCCESS)

        own, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*(call(model) for model in models for _ in range(callers)))
        return 1e6 * (time.process_time() - own), 1e6 * (time.perf_counter() - wall)
