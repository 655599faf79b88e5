"""The providers' own SDKs below leases, over HTTP, against the mock provider in their dialects.

Run by ``make e2e-provider-sdks``, which installs them all, and by ``make e2e-sdks`` for those that
are installed there. What is not installed is not tried; that none is, fails.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import importlib.util
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import forebay
from forebay.contracts.snapshots import DomainSnapshot
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from forebay.mock_provider.log import RequestRecord
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from tests.contract.chat_domain import counts, is_idle, when
from tests.sdks.provider_clients import CLIENTS, Client, Sdk

CALLS = 6
CAP = 2
WAIT_SECONDS = 30.0
DAY = 10_000


def _is_here(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a package within one
        return False


def _takes(sdk: Sdk) -> bool:
    """Whether the version that is here has the class, and takes the HTTP library."""
    if not _is_here(sdk.package):
        return False
    version = importlib.metadata.version(sdk.package) if sdk.package == "openai" else "3"
    return int(version.partition(".")[0]) >= 3


INSTALLED = [sdk for sdk in CLIENTS if _takes(sdk)]
FACES = [(sdk, face) for sdk in INSTALLED for face in ("async", "sync")]

every_face = pytest.mark.parametrize(
    ("sdk", "face"), FACES, ids=[f"{sdk.name}-{face}" for sdk, face in FACES]
)


def test_an_sdk_is_installed() -> None:
    assert INSTALLED, "no provider's SDK is here; run make e2e-provider-sdks"


@dataclass(kw_only=True)
class Fleet:
    """A client of one SDK under a cap, and what is seen of its calls."""

    client: Client
    is_sync: bool
    provider: MockProviderServer
    connection: ServerConnection
    resource: forebay.RequestResourceKey

    async def do(self, function: Callable[[], Any]) -> Any:
        return await (asyncio.to_thread(function) if self.is_sync else function())

    async def whole(self) -> Any:
        return await self.do(self.client.whole)

    async def read_stream(self) -> None:
        """Read a stream to its end."""
        if self.is_sync:
            await asyncio.to_thread(lambda: [*self.client.stream()])
            return
        stream = self.client.stream()
        opened = await stream if asyncio.iscoroutine(stream) else stream
        async for _ in opened:
            pass

    async def ended(self) -> DomainSnapshot:
        """Wait until no lease is out: some SDKs leave a stream open that told an error."""

        def is_collected(seen: DomainSnapshot) -> bool:
            gc.collect()
            return is_idle(seen)

        return await when(self.connection, is_collected, self.resource)

    async def drawn_tokens(self) -> float:
        """Return what the calls drew from the budget of a day, in the end."""
        await self.ended()
        pressure = RequestPressureSnapshotProvider(self.connection)
        shard = await pressure.global_snapshot(self.resource.provider_model)
        (bucket,) = shard.budgets
        return DAY - bucket.level


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProviderServer]:
    with MockProviderServer(ProviderTruth()) as provider:
        yield provider


def calls_since(index: int, mock: MockProviderServer) -> list[RequestRecord]:
    return [one for _, one in mock.state.log.since(index) if isinstance(one, RequestRecord)]


@asynccontextmanager
async def calling(
    sdk: Sdk,
    face: str,
    redis_url: str,
    mock: MockProviderServer,
    *,
    retries: int = 0,
    **truth: Any,
) -> AsyncIterator[Fleet]:
    """Make a client of an SDK whose calls go to the mock provider, in the SDK's dialect."""
    dialect = "openai" if sdk.provider == "anthropic" else sdk.provider
    fresh = ProviderTruth(dialect=dialect, retry_after_seconds=WAIT_SECONDS)
    mock.change_truth(**{**fresh.model_dump(exclude={"schedule"}), **truth})
    mock.state.counters.max_in_flight = 0
    host = mock.root_url.removeprefix("http://")
    http = forebay.http_client(
        redis_url,
        max_parallel_requests=CAP,
        config=forebay.RequestAdmissionConfig(quotas=forebay.RequestQuotas(tokens_per_day=DAY)),
        resolve=forebay.HttpResolver({host: sdk.provider}),
        library=sdk.library,
        sync=face == "sync",
    )
    key = forebay.ProviderModelKey(provider_name=sdk.provider, model_id="m")
    async with await ServerConnection.open(redis_url) as connection, asyncio.timeout(60):
        try:
            yield Fleet(
                client=sdk.make(http, mock.root_url, face == "sync", retries),
                is_sync=face == "sync",
                provider=mock,
                connection=connection,
                resource=forebay.RequestResourceKey(provider_model=key),
            )
        finally:
            await (asyncio.to_thread(http.close) if face == "sync" else http.aclose())


@every_face
async def test_a_cap_of_two_holds_at_the_provider_and_usage_settles(
    sdk: Sdk, face: str, redis_url: str, mock: MockProviderServer
) -> None:
    async with calling(sdk, face, redis_url, mock, latency_floor_seconds=0.02) as fleet:
        before = len(list(mock.state.log.since()))
        await asyncio.gather(*(fleet.whole() for _ in range(CALLS)))
        assert counts(await fleet.ended()) == {"success": CALLS}
        assert mock.state.counters.max_in_flight <= CAP
        used = sum(one.total_tokens for one in calls_since(before, mock))
        assert await fleet.drawn_tokens() == pytest.approx(used, abs=2)


@every_face
async def test_a_stream_settles_by_the_usage_at_its_end(
    sdk: Sdk, face: str, redis_url: str, mock: MockProviderServer
) -> None:
    if not sdk.streams:
        pytest.skip("the mock provider does not stream this API")
    async with calling(sdk, face, redis_url, mock) as fleet:
        before = len(list(mock.state.log.since()))
        await fleet.read_stream()
        assert counts(await fleet.ended()) == {"success": 1}
        used = sum(one.total_tokens for one in calls_since(before, mock))
        if sdk.tells_usage_of_streams:
            assert await fleet.drawn_tokens() == pytest.approx(used, abs=2)


@every_face
async def test_a_throttle_in_the_dialect_moves_the_window_and_its_wait_is_kept(
    sdk: Sdk, face: str, redis_url: str, mock: MockProviderServer
) -> None:
    async with calling(sdk, face, redis_url, mock, concurrency=0) as fleet:
        with pytest.raises(Exception, match=r"."):
            await fleet.whole()
        seen = await fleet.ended()
        assert counts(seen) == {"rate_limited": 1}
        assert seen.cooldown_remaining_seconds > 0
        if sdk.tells_waits:
            assert WAIT_SECONDS - 10 < seen.cooldown_remaining_seconds <= WAIT_SECONDS


@every_face
async def test_an_overload_within_a_stream_is_one(
    sdk: Sdk, face: str, redis_url: str, mock: MockProviderServer
) -> None:
    if not sdk.streams:
        pytest.skip("the mock provider does not stream this API")
    async with calling(sdk, face, redis_url, mock, stream_overload_rate=1) as fleet:
        if sdk.raises_within_streams:
            with pytest.raises(Exception, match=r"."):
                await fleet.read_stream()
        else:
            await fleet.read_stream()
        assert counts(await fleet.ended()) == {"rate_limited": 1}


@every_face
async def test_a_request_larger_than_the_limit_goes_out_once_and_cuts_nothing(
    sdk: Sdk, face: str, redis_url: str, mock: MockProviderServer
) -> None:
    async with calling(sdk, face, redis_url, mock, retries=3, tokens_per_minute=1) as fleet:
        before = len(list(mock.state.log.since()))
        with pytest.raises(Exception, match=r"."):
            await fleet.whole()
        seen = await fleet.ended()
        assert (counts(seen), seen.cuts) == ({"provider_failure": 1}, 0)
        assert seen.cooldown_remaining_seconds == 0
        assert len(calls_since(before, mock)) == 1
