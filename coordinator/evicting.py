"""Ending one lease by hand, whichever shard it is of (design 07, *Command line*)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from redis.exceptions import RedisError

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.keys import POOL_TAG, ShardKeys, encode
from forebay.coordinator.requests.administration import evict_request_lease
from forebay.coordinator.requests.snapshots import provider_model_of
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import evict_task_lease


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFound:
    """A lease that a shard has.

    Attributes:
        encoded_id: its id as it stands in keys.
        shard: the provider/model, or the name of the task pool.
        member_id: the member that holds it.
        process: host, pid and program of that member; "" where they are not known.
    """

    encoded_id: str
    shard: ProviderModelKey | str
    member_id: str
    process: str

    def __str__(self) -> str:
        where = self.shard if isinstance(self.shard, ProviderModelKey) else f"pool {self.shard}"
        by = f"{self.member_id} ({self.process})" if self.process else self.member_id
        return f"lease {unquote(self.encoded_id)} in {where}, held by member {by}"


async def find_lease(connection: ServerConnection, lease_id: str) -> LeaseFound:
    """Return the lease of an id, which is that of a request or of a task; writes nothing.

    Raises:
        ConfigurationError: no shard of the server has it.
        CoordinatorError: the server could not be used.
    """
    for tag in await connection.shards():
        if tag.startswith(POOL_TAG):
            shard: ProviderModelKey | str | None = unquote(tag.removeprefix(POOL_TAG))
        else:
            shard = provider_model_of(tag)
        if shard is not None and (found := await _in_shard(connection, tag, shard, lease_id)):
            return found
    raise ConfigurationError(
        f"no shard on the server at {connection.address} has a lease {lease_id!r}, expected the id"
        " of one that is out; it may have ended by now: see `forebay who`, or the holders that"
        " `forebay explain` names."
    )


async def evict(connection: ServerConnection, lease: LeaseFound) -> bool:
    """End a lease; return False where it had ended by itself meanwhile.

    The slot is free at once, a task waits again, and the holder gets a notice: an
    arq worker cancels the job, a client's ``on_lease_lost`` is called. The holder's later release
    is answered with ``stale_lease``.

    Raises:
        ConfigurationError: the shard is being rebuilt.
        CoordinatorError: the server could not be used.
    """
    if isinstance(lease.shard, ProviderModelKey):
        return await evict_request_lease(connection, lease.shard, lease.encoded_id)
    return await evict_task_lease(connection, lease.shard, lease.encoded_id)


async def _in_shard(
    connection: ServerConnection, tag: str, shard: ProviderModelKey | str, lease_id: str
) -> LeaseFound | None:
    keys = ShardKeys(tag, ())
    try:
        async with connection.deadline():
            for encoded in dict.fromkeys((lease_id, encode(lease_id))):
                text = await _field(connection, keys["leases"], encoded)
                if text is not None:
                    member = bytes(text).decode().partition("|")[0]
                    known = await _field(connection, keys["meta"], f"member:{member}")
                    return LeaseFound(
                        encoded_id=encoded,
                        shard=shard,
                        member_id=member,
                        process=_process_of(bytes(known).decode()) if known else "",
                    )
    except (RedisError, OSError) as error:
        raise connection_error(error, connection.address, "looking for a lease") from error
    return None


def _process_of(words: str) -> str:
    host, pid, program, *_ = [unquote(word) for word in words.split(" ")]
    return "" if host == "-" else f"{program}, pid {pid} on {host}"


async def _field(connection: ServerConnection, key: str, name: str) -> bytes | None:
    found: bytes | None = await connection.ask(key, lambda node: node.client.hget(key, name))
    return found
