"""A worker's health record: its keys and its readers (docs/arq.md).

arq records a worker's health under one key per queue, which ``arq --check`` reads. A pool's key is
named after the pool, so that two pools of a server have two; ``arq --check`` knows no pools and
looks under the key of the settings' queue, so the record is copied there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arq.connections import ArqRedis
from arq.constants import default_queue_name, health_check_key_suffix
from redis.exceptions import RedisError, ResponseError

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.logs import Logger
from forebay.coordinator.server.connections import open_async
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server.version import check_server

log = Logger("forebay.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthKeys:
    """The keys of the health records of a pool's workers.

    Attributes:
        own: read by ``forebay worker --check``; the setting ``health_check_key``, else the pool's.
        of_arq: read by ``arq --check``; None where it is the same.
    """

    own: str
    of_arq: str | None

    @classmethod
    def of(cls, pool: str, settings: Mapping[str, Any]) -> HealthKeys:
        """Return the keys of a pool and of a worker's settings."""
        named = settings.get("health_check_key")
        if named is not None:
            return cls(own=str(named), of_arq=None)
        queue = settings.get("queue_name") or default_queue_name
        return cls(
            own=pool_shard(pool)["queue"] + health_check_key_suffix,
            of_arq=queue + health_check_key_suffix,
        )


class HealthRecord:
    """The record that one worker wrote.

    Args:
        keys: where it lies.
        interval_seconds: how often it is written; it lives a second longer.
    """

    def __init__(self, keys: HealthKeys, interval_seconds: float) -> None:
        self._keys = keys
        self._lives_ms = int((interval_seconds + 1) * 1000)
        self._copy_key = keys.of_arq
        self._written: bytes | None = None

    async def note(self, client: ArqRedis) -> None:
        """Remember the record that arq has just written, and copy it to ``arq --check``'s key.

        Raises:
            RedisError: the server could not be used.
        """
        self._written = await client.get(self._keys.own)
        if self._written is None or self._copy_key is None:
            return
        try:
            await client.psetex(self._copy_key, self._lives_ms, self._written)
        except ResponseError as error:  # as of an ACL user to whom arq's queue is closed
            log.warning("health_record_not_copied", key=self._copy_key, error=str(error))
            self._copy_key = None

    async def delete(self, client: ArqRedis) -> None:
        """Delete the record, unless another worker has written its own over it since.

        Raises:
            RedisError: the server could not be used.
        """
        for key in filter(None, (self._keys.own, self._copy_key)):
            if self._written is not None and await client.get(key) == self._written:
                await client.delete(key)


async def read_health(url: str, key: str) -> str | None:
    """Return the health record of the worker that wrote last; None where there is none.

    Raises:
        ConfigurationError: the URL is wrong, or the server is none that a worker can use.
        CoordinatorUnavailable: the server cannot be used, or does not answer within a call's
            deadline.
    """
    address, seconds = parse_url(url), MemberSettings().call_timeout_seconds
    try:
        async with asyncio.timeout(seconds), open_async(address) as client:
            await check_server(client, address, timeout_seconds=seconds, only_reads=True)
            found = await client.get(key)
    except (RedisError, OSError) as error:
        cause = str(error) or type(error).__name__
        raise CoordinatorUnavailable(
            f"the health record {key} at {address} cannot be read ({cause}), expected a server"
            " that answers and a text there; start the server, or correct --url and the key."
        ) from error
    return found.decode(errors="backslashreplace") if isinstance(found, bytes) else None
