"""Hidden RPM, TPM and concurrency limits, all active: how much of the tightest one is reached.

``python -m tests.providers hidden-limits`` runs it alone. The mock provider's answers carry
``x-ratelimit-*`` headers for its two budgets, as OpenAI's do; nobody is told anything else.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.shared_capacity import children
from bench.shared_capacity.counts import TruthCounts, get_json
from bench.shared_capacity.load import Load, Way
from forebay import RequestAdmissionConfig, RequestQuotas
from tests.providers.books import Limit, Row, compare
from tests.providers.scenarios import BARE, UNTOLD

SECONDS: Final = 150.0
MINUTE_SECONDS: Final = 60.0
LATENCY_SECONDS: Final = 0.5
LATENCY_SIGMA: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The limits that are hidden.

    Attributes:
        name: which of them is the tightest.
        concurrency: calls at once.
        requests_per_minute: calls a minute.
        tokens_per_minute: tokens a minute.
    """

    name: str
    concurrency: int
    requests_per_minute: int
    tokens_per_minute: int


TRUTHS: Final = {
    truth.name: truth
    for truth in (
        Truth(name="tpm", concurrency=16, requests_per_minute=900, tokens_per_minute=18_000),
        Truth(name="rpm", concurrency=16, requests_per_minute=600, tokens_per_minute=24_000),
        Truth(name="concurrency", concurrency=4, requests_per_minute=900, tokens_per_minute=27_000),
    )
}


def hidden_limits(truth: Truth, seconds: float = SECONDS) -> list[Row]:
    """Call the mock provider under hidden limits; the figures are of what follows a minute."""
    options = (
        *("--concurrency", str(truth.concurrency), "--rpm", str(truth.requests_per_minute)),
        *("--tpm", str(truth.tokens_per_minute), "--latency", str(LATENCY_SECONDS)),
        *("--sigma", str(LATENCY_SIGMA)),
    )
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="providers-") as name,
        children.mock_provider(Path(name), *options) as base_url,
    ):
        load = Load(base_url=base_url, seconds=seconds)
        tokens = _tokens_per_call(load)
        limit = _tightest(truth, tokens)
        ways = [
            BARE,
            UNTOLD,
            Way(
                name="Forebay, told",
                max_parallel_requests=truth.concurrency,
                config=RequestAdmissionConfig(
                    quotas=RequestQuotas(
                        requests_per_minute=truth.requests_per_minute,
                        tokens_per_minute=truth.tokens_per_minute,
                    )
                ),
            ),
        ]
        rows += compare(f"hidden limits, {truth.name}", load, limit, ways, TruthCounts(base_url))
    return rows


def _tightest(truth: Truth, tokens_per_call: int) -> Limit:
    limits = {
        "concurrency": truth.concurrency / LATENCY_SECONDS,
        "rpm": truth.requests_per_minute / MINUTE_SECONDS,
        "tpm": truth.tokens_per_minute / tokens_per_call / MINUTE_SECONDS,
    }
    name = min(limits, key=limits.__getitem__)
    return Limit(name=name, calls_per_second=limits[name], settled_after=MINUTE_SECONDS)


def _tokens_per_call(load: Load) -> int:
    """Ask once; the mock provider's answers to one prompt are all the same."""
    body = {
        "model": load.model,
        "messages": [{"role": "user", "content": load.prompt}],
        "max_tokens": load.max_tokens,
    }
    answer = get_json(f"{load.base_url}/chat/completions", json.dumps(body).encode())
    tokens: int = answer["usage"]["total_tokens"]
    return tokens
