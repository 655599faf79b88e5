"""`forebay ops`: the page, its JSON, the metrics and who may read them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

import forebay
from forebay.cli import cli
from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.keys import SHARDS_KEY, request_shard
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.http_server import StoppableServer
from forebay.ops import fleet as fleet_module
from forebay.ops import server as ops_server
from forebay.ops.metrics import METRICS, OTHER
from forebay.ops.server import OpsSettings, serve
from forebay.serving import listen, root_url_of
from tests.contract.chat_domain import MODEL, item
from tests.support import wait_until
from tests.support_scripts import AIMD
from tests.support_tasks import joined, task

TENANT = "<img src=x>"


@asynccontextmanager
async def looking(
    url: str, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the page for the length of a block; a client of it looks every 20 ms."""
    servers: list[StoppableServer] = []

    class Noted(StoppableServer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            servers.append(self)

    monkeypatch.setattr(ops_server, "StoppableServer", Noted)
    monkeypatch.setattr(ops_server, "INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr(fleet_module, "LOOK_SECONDS", 60.0)  # on a busy machine, too
    listener, started = listen("127.0.0.1", 0), asyncio.Event()
    root = root_url_of(listener)
    serving = asyncio.create_task(
        serve(OpsSettings(url=url, **settings), listener, started.set), name="ops"
    )
    await wait_until(lambda: started.is_set() or serving.done())
    try:
        async with httpx2.AsyncClient(base_url=root, timeout=10) as client:
            yield client
    finally:
        for one in servers:
            one.should_exit = True
        await asyncio.wait_for(serving, timeout=20)


@asynccontextmanager
async def busy(url: str) -> AsyncIterator[None]:
    """A model with one lease and three waiters, one rate limit behind it, and a pool."""
    async with forebay.connect(url) as requests, await ServerConnection.open(url) as connection:
        await requests.register(MODEL, "main", 1, AIMD)
        limited = await requests.acquire(item())
        await requests.release(
            limited,
            forebay.RequestReleaseOutcome(
                kind=forebay.RequestOutcomeKind.RATE_LIMITED, retry_after_seconds=0.001
            ),
        )
        held = await requests.acquire(item())
        group = forebay.RequestGroupSpec(key=TENANT)
        waiting = [asyncio.create_task(requests.acquire(item(group=group))) for _ in range(3)]
        try:
            async with joined(connection, "mails") as pool:
                await pool.queue.submit(task("t1"))
                await wait_until(lambda: _waiters(requests, 3))
                yield
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await requests.release(held, forebay.SUCCESS)


async def _waiters(requests: Any, count: int) -> bool:
    return (await requests.pressure.global_snapshot(MODEL)).waiters == count


async def test_the_page_its_json_and_metrics_show_one_fleet(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with busy(redis_url), looking(redis_url, monkeypatch, labels={MODEL: "m"}) as page:
        (row,) = (await page.get("/api/fleet")).json()["models"]
        assert (row["window"], row["in_flight"], row["waiting"]) == (1, 1, 3)
        assert (row["rate_limited"], row["granted"]) == (1, 2)
        (pool,) = (await page.get("/api/fleet")).json()["pools"]
        assert (pool["pool"], pool["state"]) == ("mails", "open")
        assert pool["queued"] == 1
        assert [group["waiting"] for group in pool["groups"]] == [1]

        shown = (await page.get("/api/model", params={"provider": "p", "model": "m"})).json()
        (group,) = shown["snapshot"]["domains"]["chat"]["waiting_groups"]
        assert (group["group"], group["waiting"]) == (TENANT, 3)
        assert "request_rate_limited" in [event["kind"] for event in shown["events"]]

        values = await metrics(page)
        labels = (("domain", "chat"), ("model", "m"), ("provider", "p"))
        assert values["forebay_up", ()] == 1
        assert values["forebay_waiters", labels] == 3
        assert values["forebay_leases_granted_total", labels] == 2
        ended = tuple(sorted((*labels, ("outcome", "rate_limited"))))
        assert values["forebay_outcomes_total", ended] == 1


async def metrics(page: httpx2.AsyncClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples of /metrics once the first look is over, by name and sorted labels."""
    await wait_until(lambda: _is_up(page))
    families = text_string_to_metric_families((await page.get("/metrics")).text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def _is_up(page: httpx2.AsyncClient) -> bool:
    return "forebay_up 1.0" in (await page.get("/metrics")).text


async def test_models_off_the_list_are_summed_and_no_id_is_a_label(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with busy(redis_url), looking(redis_url, monkeypatch) as page:
        values = await metrics(page)
        labels = (("domain", "chat"), ("model", OTHER), ("provider", "p"))
        assert values["forebay_in_flight", labels] == 1
        names = {name for _, pairs in values for name, _ in pairs}
        known = {name for metric in METRICS.values() for name in metric.labels}
        assert (
            names <= known == {"provider", "model", "domain", "outcome", "budget", "pool", "state"}
        )
        assert TENANT not in (await page.get("/metrics")).text


async def test_the_stream_tells_each_look_and_the_servers_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedServer(tmp_path) as own:
        async with looking(own.url, monkeypatch) as page, page.stream("GET", "/api/stream") as said:
            lines = said.aiter_lines()

            async def heard(holds: Any) -> dict[str, Any]:
                async for line in lines:
                    message = json.loads(line[6:]) if line.startswith("data: ") else None
                    if message is not None and holds(message):
                        return message
                raise AssertionError("the stream ended")

            await heard(lambda message: message["fleet"] is not None)
            own.kill()
            lost = await heard(lambda message: message["error"] is not None)
            assert "no answer from the server at" in lost["error"]
            assert (await page.get("/healthz")).status_code == 503
            assert "forebay_up 0.0" in (await page.get("/metrics")).text
            own.restart()
            await heard(lambda message: message["error"] is None)
            assert (await page.get("/healthz")).status_code == 200


async def test_a_damaged_shard_is_a_problem_and_hides_no_other(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with busy(redis_url), looking(redis_url, monkeypatch) as page:
        with open_sync(parse_url(redis_url)) as client:
            other = forebay.ProviderModelKey(provider_name="p", model_id="torn")
            client.sadd(SHARDS_KEY, request_shard(other).tag, "no shard of ours")
            client.set(request_shard(other)["meta"], "not a hash")
        shown = (await page.get("/api/fleet")).json()
        assert [row["model"] for row in shown["models"]] == ["m"]
        problem, foreign = shown["problems"]
        assert problem.startswith("p/torn: ")
        assert "'no shard of ours'" in foreign


async def test_readers_need_the_token_wherever_it_may_stand(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with looking(redis_url, monkeypatch, token="secret") as page:
        for path in ("/", "/api/fleet", "/metrics", "/api/stream", "/page.js"):
            assert (await page.get(path)).status_code == 401
            wrong = {"authorization": "Bearer wrong", "cookie": "forebay_ops_token=wrong"}
            assert (await page.get(path, headers=wrong)).status_code == 401
        assert (await page.get("/?token=wrong")).status_code == 401
        assert (await page.get("/healthz")).status_code == 200
        bearer = {"authorization": "Bearer secret"}
        assert (await page.get("/metrics", headers=bearer)).status_code == 200
        opened = await page.get("/?token=secret")
        assert (opened.status_code, opened.headers["location"]) == (303, "/")
        assert "httponly" in opened.headers["set-cookie"].lower()
        assert (await page.get("/")).status_code == 200  # by the cookie


async def test_a_foreign_host_name_is_refused_and_the_page_loads_from_here_alone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with looking(redis_url, monkeypatch) as page:
        rebound = await page.get("/api/fleet", headers={"host": "evil.example"})
        assert rebound.status_code == 400
        html = await page.get("/")
        assert html.headers["content-security-policy"].startswith("default-src 'self'")
        wanted = re.findall(r'(?:src|href)="([^"]+)"', html.text)
        assert wanted == ["icon.svg", "page.css", "page.js"]
        while wanted:
            answer = await page.get(f"/{wanted.pop()}")
            assert answer.status_code == 200
            wanted += re.findall(r'^import .* from "./(.+)";$', answer.text, re.MULTILINE)
        assert (await page.post("/api/fleet")).status_code == 405
        assert (await page.get("/api/model")).status_code == 400
        assert (await page.get("/api/pool", params={"name": ""})).status_code == 400


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "can be reached by others"),
        (["--token", ""], "--token is empty"),
        (["--metric-model", "gpt"], "names no model"),
    ],
)
def test_unsafe_or_wrong_options_are_refused_in_a_sentence(options: list[str], said: str) -> None:
    command = ["ops", "--url", "redis://127.0.0.1:1", "--port", "0", *options]
    shown = CliRunner().invoke(cli, command)
    assert isinstance(shown.exception, ConfigurationError)
    assert said in str(shown.exception)
