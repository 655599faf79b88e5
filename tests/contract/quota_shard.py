"""A request shard with quotas, as the tests of its rules ask it and look at it."""

from __future__ import annotations

import json
from typing import Any

from forebay.contracts.quotas import QuotaBudget
from forebay.contracts.settings import RequestAdmissionConfig, RequestQuotas
from tests.support_scripts import Acquire, Register, ScriptedShard
from tests.support_state import audited

RPM, TPM = QuotaBudget.REQUESTS_PER_MINUTE, QuotaBudget.TOKENS_PER_MINUTE
SECOND_US = 1_000_000


def config(**quotas: Any) -> RequestAdmissionConfig:
    return RequestAdmissionConfig(quotas=RequestQuotas(**quotas))


def opened(shard: ScriptedShard, **quotas: Any) -> ScriptedShard:
    shard.join("m", ttl_seconds=3600)
    shard.batch("m", Register("alias", 100, config(**quotas)))
    return shard


def levels(shard: ScriptedShard) -> dict[str, float]:
    """Look at what is left of each budget, after an audit that agrees."""
    audited(shard.client, shard.keys)
    capture = json.loads(shard.run("requests/snapshot", shard.keys.all, [0]))
    return {row["budget"]: float(row["level"]) for row in capture["budgets"]}


def answers(shard: ScriptedShard, *ops: Acquire) -> list[str]:
    return [result[0] for result in shard.batch("m", *ops).results]
