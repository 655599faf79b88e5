"""The providers, their limits, and what their clients are told of them."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.shared_capacity import children
from bench.shared_capacity.load import Load, Way
from forebay import RequestAdmissionConfig, RequestQuotas
from tests.providers.books import Limit, Row, compare

BARE: Final = Way(name="bare")
UNTOLD: Final = Way(name="Forebay, told nothing", max_parallel_requests=64)

_NGINX_RATE: Final = 30
_AT_ONCE: Final = 8
_NGINX_TOLD: Final = Way(
    name="Forebay, told",
    max_parallel_requests=_AT_ONCE,
    config=RequestAdmissionConfig(
        # A smaller burst than nginx's: attempts that were granted evenly do not arrive so.
        quotas=RequestQuotas(
            requests_per_minute=60 * _NGINX_RATE, bursts={"requests_per_minute": 8}
        )
    ),
)

_LITELLM_AT_ONCE_TOLD: Final = Way(name="Forebay, told", max_parallel_requests=_AT_ONCE)
_LITELLM_TOKENS: Final = 6000
_LITELLM_TOKENS_PER_CALL: Final = 30
# LiteLLM counts by the minutes of the clock, so what fills a bucket and its burst share one.
_BURST_TOKENS: Final = 120
_LITELLM_MINUTE_TOLD: Final = Way(
    name="Forebay, told",
    max_parallel_requests=64,
    config=RequestAdmissionConfig(
        quotas=RequestQuotas(
            requests_per_minute=236,
            tokens_per_minute=_LITELLM_TOKENS - _BURST_TOKENS,
            bursts={"requests_per_minute": 4, "tokens_per_minute": _BURST_TOKENS},
        )
    ),
)


def nginx(seconds: float = 60.0) -> list[Row]:
    """Call the mock provider through nginx with limit_req and limit_conn."""
    with tempfile.TemporaryDirectory(prefix="providers-") as name:
        folder = Path(name)
        with (
            children.mock_provider(folder, "--latency", "0.2") as upstream,
            children.nginx(folder, upstream) as (base_url, counts),
        ):
            return compare(
                "nginx",
                Load(base_url=base_url, seconds=seconds),
                Limit(name="limit_req", calls_per_second=_NGINX_RATE, settled_after=seconds / 2),
                [BARE, UNTOLD, _NGINX_TOLD],
                counts,
            )


def litellm(program: Path, seconds: float = 60.0, minutes: int = 2) -> list[Row]:
    """Call LiteLLM's own mock models, one limited in parallel calls, one by the minute."""
    with (
        tempfile.TemporaryDirectory(prefix="providers-") as name,
        children.litellm_proxy(Path(name), program) as (base_url, counts),
    ):
        load = Load(base_url=base_url, api_key="sk-local", model="at-once", seconds=seconds)
        rows = compare(
            "LiteLLM, at once",
            load,
            Limit(
                name="max_parallel_requests",
                calls_per_second=_AT_ONCE / 0.5,
                settled_after=seconds / 2,
            ),
            [BARE, UNTOLD, _LITELLM_AT_ONCE_TOLD],
            counts,
        )
        by_minute = replace(load, model="a-minute", seconds=minutes * 60.0 - 1)
        rate = _LITELLM_TOKENS / _LITELLM_TOKENS_PER_CALL / 60
        rows += compare(
            "LiteLLM, a minute",
            by_minute,
            Limit(name="tpm", calls_per_second=rate, settled_after=60.0),
            [BARE, UNTOLD, _LITELLM_MINUTE_TOLD],
            counts,
            before=_next_minute,
        )
        return rows


def _next_minute() -> None:
    """Wait for the next minute of the clock, by which LiteLLM counts."""
    time.sleep(60.5 - time.time() % 60)
