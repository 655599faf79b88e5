"""Operators' settings by name: reads the value on the server, and sets it (design 07)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from redis.exceptions import RedisError

from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.requests.administration import set_override_cap
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import require_pool, set_pool_limit, set_pool_state
from forebay.coordinator.tasks.names import encode_resource
from forebay.coordinator.tasks.pool_settings import PoolState
from forebay.coordinator.tasks.snapshots import PoolReader

NONE: Final = "none"
HOLDER: Final = "operator"
_STATES: Final[Mapping[str, PoolState]] = {
    "open": "open",
    "paused": "paused",
    "draining": "draining",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of operators.

    Attributes:
        kind: of a provider/model its override cap, of a pool its state or a claim of a limit.
        of: ``provider/model``, or the pool's name.
        resource: of a limit.
    """

    kind: Literal["cap", "state", "limit"]
    of: str
    resource: str = ""

    def __str__(self) -> str:
        if self.kind == "cap":
            return f"cap of {self.of}"
        what = f"limit of {self.resource}" if self.kind == "limit" else "state"
        return f"{what} of pool {self.of}"

    @property
    def provider_model(self) -> ProviderModelKey:
        """The provider/model of a cap."""
        provider, _, model = self.of.partition("/")
        return ProviderModelKey(provider_name=provider, model_id=model)


async def read_now(connection: ServerConnection, settings: Iterable[Setting]) -> dict[Setting, str]:
    """Return the settings' present values as text; ``none`` for an unset bound.

    Raises:
        ConfigurationError: a pool that nobody made.
        CoordinatorError: the server could not be used.
    """
    return {setting: await _now(connection, setting) for setting in settings}


def digest_of(values: Mapping[Setting, str]) -> str:
    """Return a short digest of settings and their values; pure."""
    rows = sorted([s.kind, s.of, s.resource, value] for s, value in values.items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


async def put(connection: ServerConnection, setting: Setting, value: str) -> None:
    """Set one setting on the server; a repeat changes nothing.

    Raises:
        ConfigurationError: a value out of bounds, or a provider/model or pool that nobody used.
        CoordinatorError: the server could not be used.
    """
    number = int(value) if value.isdigit() else None
    match setting.kind:
        case "cap":
            await set_override_cap(connection, setting.provider_model, number)
        case "state":
            await set_pool_state(connection, setting.of, _STATES[value])
        case "limit":
            await set_pool_limit(connection, setting.of, setting.resource, number, holder=HOLDER)


async def _now(connection: ServerConnection, setting: Setting) -> str:
    if setting.kind == "cap":
        pressure = RequestPressureSnapshotProvider(connection)
        cap = (await pressure.global_snapshot(setting.provider_model)).override_cap
        return str(cap or NONE)
    await require_pool(connection, setting.of)
    if setting.kind == "state":
        return (await PoolReader(connection, pool_shard(setting.of)).snapshot()).state
    prefix = f"@{HOLDER}\0{encode_resource(setting.resource)}"
    try:
        async with connection.deadline():
            claims = await connection.client.zrange(
                pool_shard(setting.of)["claims"], f"[{prefix}\0", f"({prefix}\1", bylex=True
            )
    except (RedisError, OSError) as error:
        raise connection_error(error, connection.address, "reading a pool's claims") from error
    return bytes(claims[0]).decode().rpartition("\0")[2] if claims else NONE
