"""Every key of Forebay, by shard (design 09, *Keys*).

Names from outside are percent-encoded, so none can close a hash tag, make a key of another shape,
or break a packed value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from forebay.contracts.checks import check_name
from forebay.contracts.identity import ProviderModelKey

PREFIX: Final = "fb:"
SHARDS_KEY: Final = "fb:shards"
"""Set of the tags of all shards; members add to it on joining."""
POOL_TAG: Final = "pool:"
"""With what the tags of task pools begin."""
SCHEMA_VERSION: Final = "4"
KEEP_UNUSED_SHARD_MS: Final = 7 * 24 * 3600 * 1000

REQUEST_KEYS: Final = (
    "meta",
    "aliases",
    "leases",
    "members",
    "checks",
    "intervals",
    "suspects",
    "awaited",
    "held",
    "waiters",
    "aside",
    "line_chat",
    "line_embedding",
    "line_image",
    "line_healthcheck",
    "fifo",
    "groups",
    "idle_groups",
    "deadlines",
    "holds",
    "budgets",
    "sharers",
    "finished",
    "events",
)
"""Kinds of key of a request shard, in the order of its scripts' KEYS."""

POOL_KEYS: Final = (
    "meta",
    "claims",
    "limits",
    "ledger",
    "config",
    "tasks",
    "queue",
    "ready",
    "signatures",
    "fifo",
    "groups",
    "idle_groups",
    "delayed",
    "parked",
    "unserved",
    "suspect_tasks",
    "leases",
    "members",
    "checks",
    "intervals",
    "suspects",
    "awaited",
    "held",
    "functions",
    "losses",
    "watched",
    "idle",
    "pushes",
    "finished",
    "events",
    "runs",
    "progress",
    "cells",
    "row_groups",
    "checkpoints",
)
"""Kinds of key of a task pool, in the order of its scripts' KEYS."""


def encode(name: str) -> str:
    """Return ``name`` with everything outside ``[A-Za-z0-9._~-]`` percent-encoded as UTF-8."""
    if name.isascii() and name.isalnum():
        return name  # most ids are, and each is met once: not worth a place in a cache
    return _quote(name)


@lru_cache(maxsize=8192)
def _quote(name: str) -> str:
    return quote(name, safe="")


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """The keys of one shard.

    Attributes:
        tag: the hash tag's content, ``rq:<provider>/<model>`` or ``pool:<name>``.
        kinds: the fixed list of kinds of key.
    """

    tag: str
    kinds: tuple[str, ...]

    def __getitem__(self, kind: str) -> str:
        return f"{PREFIX}{{{self.tag}}}:{kind}"

    @property
    def all(self) -> list[str]:
        """Every key, in the order of KEYS."""
        return [self[kind] for kind in self.kinds]

    def wake_channel(self, member_id: str) -> str:
        """Return the channel that a member listens on."""
        return self[f"wake:{member_id}"]


def request_shard(provider_model: ProviderModelKey) -> ShardKeys:
    """Return the keys of a provider/model."""
    provider, model = encode(provider_model.provider_name), encode(provider_model.model_id)
    return ShardKeys(f"rq:{provider}/{model}", REQUEST_KEYS)


def pool_shard(name: str) -> ShardKeys:
    """Return the keys of a task pool."""
    return ShardKeys(f"pool:{check_id('pool', name)}", POOL_KEYS)


def check_id(what: str, name: str) -> str:
    """Return an id from outside as it stands in keys and replies: bounded and encoded."""
    return encode(check_name(what, name))
