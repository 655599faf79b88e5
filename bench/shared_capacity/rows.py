"""The rows: provider, changes, registered limit, and the aims of issue 14."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.shared_capacity import children
from bench.shared_capacity.children import Counting
from bench.shared_capacity.counts import TruthCounts
from bench.shared_capacity.load import Tenant
from forebay import RequestAdmissionConfig, RequestDomain, RequestQuotas

CAP: Final = 64
DEFAULT_LITELLM: Final = Path(".venv/apart/litellm-proxy/bin/litellm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider that runs.

    Attributes:
        base_url: as the SDK wants it.
        counts: its own, of answers.
        truth_url: of the mock provider whose truth changes; None for other people's.
    """

    base_url: str
    counts: Counting
    truth_url: str | None = None


Start = Callable[[Path], contextlib.AbstractContextManager[Provider]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of the provider's limit during a run.

    Attributes:
        at: seconds after the begin.
        truth: new values of the mock provider's truth.
    """

    at: float
    truth: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """The thresholds of issue 14 for a row; None where it states none.

    Attributes:
        goodput: settled, to that of a fleet that is told.
        refused_per_success: settled refusals, in successes; one more is allowed.
        refused_share: settled refusals among the answers, where that is what counts.
        first: refusals in the first ten seconds, or in the first five of an outage.
        up_seconds: until nine tenths of a higher limit are reached.
        down_seconds: until no more than a lower limit is out.
        share_error: how far a tenant's share may be from its weight's.
    """

    goodput: float = 0.97
    refused_per_success: float | None = 0.009
    refused_share: float | None = None
    first: int | None = None
    up_seconds: float | None = None
    down_seconds: float | None = None
    share_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row.

    Attributes:
        name: on the command line.
        about: the provider, for the table.
        start: runs an instance of it, its files in a folder.
        needs: raises ConfigurationError where a program is not installed.
        limit: calls at once at the begin; None where that is not what limits.
        told: registered by the fleet that is told; None for the limit alone.
        seconds: how long calls begin.
        settled: spans that count as settled.
        changes: of the truth.
        tenants: who calls.
        api_key: what the provider wants.
        model: which one is called.
        aims: what the row should be.
        outage_at: second at which all is refused; 0 for never.
        outage_seconds: for how long.
    """

    name: str
    about: str
    start: Start
    needs: Callable[[], object] = lambda: None
    limit: int | None = None
    told: RequestAdmissionConfig | None = None
    seconds: float = 90.0
    settled: tuple[tuple[float, float], ...] = ((30.0, 90.0),)
    changes: tuple[Change, ...] = ()
    tenants: tuple[Tenant, ...] = (Tenant(),)
    api_key: str = "any"
    model: str = "mock-chat"
    aims: Aims = field(default_factory=Aims)
    outage_at: float = 0.0
    outage_seconds: float = 0.0

    @property
    def told_cap(self) -> int:
        """The highest limit, which the informed fleet registers."""
        return max(
            self.limit_at(change.at) or CAP for change in (Change(at=0, truth={}), *self.changes)
        )

    @property
    def told_config(self) -> RequestAdmissionConfig:
        """The configuration of the informed fleet."""
        if self.told is not None:
            return self.told
        return RequestAdmissionConfig(initial_limits={RequestDomain.CHAT: self.limit or CAP})

    def limit_at(self, second: float) -> int | None:
        """Return the limit on calls at once at a second of the run."""
        limit = self.limit
        for change in self.changes:
            if change.at <= second:
                limit = change.truth.get("concurrency", limit)
        return limit


def mock(concurrency: int, hint_seconds: float | None = None) -> Start:
    """Return what runs the mock provider with a limit on calls at once, which take about 0.5 s."""
    truth = {
        "concurrency": concurrency,
        "latency_median_seconds": 0.5,
        "latency_sigma": 0.1,
        "retry_after_seconds": '"none"' if hint_seconds is None else hint_seconds,
    }

    @contextlib.contextmanager
    def start(folder: Path) -> Iterator[Provider]:
        config = folder / "truth.toml"
        config.write_text("".join(f"{name} = {value}\n" for name, value in truth.items()))
        with children.mock_provider(folder, "--config", str(config)) as base_url:
            yield Provider(base_url=base_url, counts=TruthCounts(base_url), truth_url=base_url)

    return start


def in_front(proxy: Callable[..., Any], **options: Any) -> Start:
    """Return what runs a proxy in front of a mock provider that answers in about 0.2 s."""

    @contextlib.contextmanager
    def start(folder: Path) -> Iterator[Provider]:
        with (
            children.mock_provider(folder, "--latency=0.2", "--sigma=0.1") as upstream,
            proxy(folder, upstream, **options) as (base_url, counts),
        ):
            yield Provider(base_url=base_url, counts=counts)

    return start


@contextlib.contextmanager
def litellm(folder: Path) -> Iterator[Provider]:
    """Run LiteLLM's proxy, which answers by itself."""
    with children.litellm_proxy(folder, DEFAULT_LITELLM) as (base_url, counts):
        yield Provider(base_url=base_url, counts=counts)


def _find_litellm() -> str:
    return children.find_litellm(DEFAULT_LITELLM)


_24: Final = mock(24)
_STEPS: Final = (
    Change(at=40, truth={"concurrency": 24}),
    Change(at=80, truth={"concurrency": 12}),
)
_AFTER_STEPS: Final = ((10.0, 40.0), (50.0, 80.0), (90.0, 120.0))
_FOLLOWS: Final = Aims(up_seconds=10, down_seconds=2)
_OUTAGE: Final = {"refusal_rate": 1.0, "refusal_status": 503}
_A_MINUTE: Final = Aims(refused_per_success=None, refused_share=0.03)

ROWS: Final = {
    row.name: row
    for row in (
        Row(
            name="mock-4",
            about="mock, 4 at once",
            start=mock(4),
            limit=4,
            seconds=150,
            settled=((60, 150),),
            aims=Aims(first=5),
        ),
        Row(name="mock-24", about="mock, 24 at once", start=_24, limit=24),
        Row(
            name="mock-24-hint",
            about="mock, 24 at once, retry-after 1 s",
            start=mock(24, hint_seconds=1.0),
            limit=24,
        ),
        Row(
            name="mock-steps",
            about="mock, 12, 24, 12 at once",
            start=mock(12),
            limit=12,
            seconds=120,
            settled=_AFTER_STEPS,
            changes=_STEPS,
            aims=_FOLLOWS,
        ),
        Row(
            name="mock-steps-hint",
            about="mock, 12, 24, 12 at once, retry-after 1 s",
            start=mock(12, hint_seconds=1.0),
            limit=12,
            seconds=120,
            settled=_AFTER_STEPS,
            changes=_STEPS,
            aims=_FOLLOWS,
        ),
        Row(
            name="mock-outage",
            about="mock, 24 at once, all 503 for 20 s",
            start=_24,
            limit=24,
            seconds=80,
            settled=((56, 80),),
            changes=(
                Change(at=30, truth=_OUTAGE),
                Change(at=50, truth={"refusal_rate": 0.0}),
            ),
            aims=Aims(goodput=0.9, first=29),
            outage_at=30,
            outage_seconds=20,
        ),
        Row(
            name="mock-noise",
            about="mock, 24 at once, 1 % refused at random",
            start=_24,
            limit=24,
            seconds=180,
            settled=((60, 180),),
            changes=(Change(at=0, truth={"refusal_rate": 0.01}),),
            aims=Aims(goodput=0.85, refused_per_success=None, refused_share=0.02),
        ),
        Row(
            name="mock-tenants",
            about="mock, 8 at once, tenants 3:1",
            start=mock(8),
            limit=8,
            tenants=(
                Tenant(name="three", weight=3, coroutines=8),
                Tenant(name="one", weight=1, coroutines=8),
            ),
            aims=Aims(share_error=0.02),
        ),
        Row(
            name="nginx-at-once",
            about="nginx, limit_conn 8",
            start=in_front(children.nginx, has_rate=False),
            needs=children.find_nginx,
            limit=8,
            seconds=60,
            settled=((30, 60),),
        ),
        Row(
            name="haproxy-at-once",
            about="HAProxy, denies above 8",
            start=in_front(children.haproxy),
            needs=children.find_haproxy,
            limit=8,
            seconds=60,
            settled=((30, 60),),
        ),
        Row(
            name="litellm-at-once",
            about="LiteLLM, 8 parallel",
            start=litellm,
            needs=_find_litellm,
            limit=8,
            seconds=60,
            settled=((30, 60),),
            api_key="sk-local",
            model="at-once",
        ),
        Row(
            name="nginx-rate",
            about="nginx, limit_req 30/s burst 20, limit_conn 8",
            start=in_front(children.nginx),
            needs=children.find_nginx,
            limit=8,
            # a smaller burst than nginx's: attempts that were granted evenly do not arrive so
            told=RequestAdmissionConfig(
                initial_limits={RequestDomain.CHAT: 8},
                quotas=RequestQuotas(requests_per_minute=1800, bursts={"requests_per_minute": 8}),
            ),
            seconds=120,
            settled=((60, 120),),
            aims=Aims(refused_per_success=None, refused_share=0.025),
        ),
        Row(
            name="litellm-minute",
            about="LiteLLM, 200 answers a minute",
            start=litellm,
            needs=_find_litellm,
            # it counts by the minutes of the clock, so what fills a bucket and its burst share one
            told=RequestAdmissionConfig(
                initial_limits={RequestDomain.CHAT: CAP},
                quotas=RequestQuotas(
                    requests_per_minute=236,
                    tokens_per_minute=5880,
                    bursts={"requests_per_minute": 4, "tokens_per_minute": 120},
                ),
            ),
            seconds=420,
            settled=((240, 420),),
            api_key="sk-local",
            model="a-minute",
            aims=_A_MINUTE,
        ),
    )
}
