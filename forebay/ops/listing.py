"""The shards that one look at the fleet reads, by the index of shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.keys import POOL_TAG, ShardKeys, pool_shard, request_shard
from forebay.coordinator.requests.snapshots import provider_model_of
from forebay.coordinator.server_connection import ServerConnection

MOST_SHARDS: Final = 200
"""Request shards, and pools, that one look reads; further ones are counted alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedShard:
    """A shard of the index.

    Attributes:
        name: as the page and the events show it.
        keys: of the shard.
        of: the provider/model, or the pool's name.
    """

    name: str
    keys: ShardKeys
    of: ProviderModelKey | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The index of shards at one instant.

    Attributes:
        shards: to read: request shards, then pools, each sorted by tag.
        foreign: a sentence for each entry that is no shard's name.
        unread: how many shards are beyond the bound.
    """

    shards: Sequence[ListedShard]
    foreign: Sequence[str]
    unread: int


async def listed(connection: ServerConnection) -> Listing:
    """Return the shards to read; where there are too many, those that exist come first.

    Raises:
        CoordinatorError: the server could not be used.
    """
    tags = await connection.shards()
    if len(tags) > MOST_SHARDS:
        live = set(await connection.live_shards(""))
        tags.sort(key=lambda tag: tag not in live)
    models, pools, foreign = [], [], []
    for tag in tags:
        match _shard_of(tag):
            case None:
                foreign.append(f"the index of shards names {tag!r}, expected a shard's name")
            case ListedShard(of=str()) as pool:
                pools.append(pool)
            case model:
                models.append(model)
    read = models[:MOST_SHARDS] + pools[:MOST_SHARDS]
    return Listing(shards=read, foreign=foreign, unread=len(models) + len(pools) - len(read))


def _shard_of(tag: str) -> ListedShard | None:
    """Return the shard that a tag names; None where another program wrote it."""
    if (key := provider_model_of(tag)) is not None:
        return ListedShard(name=str(key), keys=request_shard(key), of=key)
    if not tag.startswith(POOL_TAG):
        return None
    pool = unquote(tag.removeprefix(POOL_TAG))
    try:
        return ListedShard(name=f"pool {pool}", keys=pool_shard(pool), of=pool)
    except ConfigurationError:
        return None
