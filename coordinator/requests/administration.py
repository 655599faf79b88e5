"""Changes that an operator makes to a request shard: ``lua/requests/administer.lua``.

Rules: design 03; design 07.

Nobody has to be a member for it, and each may be done again without harm.
"""

from __future__ import annotations

from urllib.parse import unquote

from forebay.contracts.checks import check_cap, listed
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.settings import LARGEST_CAP
from forebay.coordinator.keys import SCHEMA_VERSION, request_shard
from forebay.coordinator.process_identity import operator_identity
from forebay.coordinator.requests.snapshots import REQUEST_TAG
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.administration import (
    NeverUsedError,
    Rebuilding,
    begin_rebuild,
    run_operator_script,
)


async def reset_window(connection: ServerConnection, resource: RequestResourceKey) -> int:
    """Reset a domain's window to its initial limit, with a ramp and no ceiling or streak.

    What was learned of the provider is forgotten. Leases stay out, and a rate limit of one that was
    admitted before cuts nothing any more; it still cools down. A cooldown stays as it is.

    Returns:
        The window's limit now; 0 if the domain was never used, so that there was nothing to reset.

    Raises:
        ConfigurationError: nobody ever used the provider/model on this server.
        CoordinatorError: the server could not be used, or another version wrote the shard.
    """
    return await _change(connection, resource.provider_model, "reset_window", resource.domain.value)


async def reset_cooldown(connection: ServerConnection, resource: RequestResourceKey) -> float:
    """End a domain's cooldown; free slots go to its waiters in the same script.

    Returns:
        Seconds that were left of the cooldown; 0.0 if the domain was open.

    Raises:
        ConfigurationError: nobody ever used the provider/model on this server.
        CoordinatorError: the server could not be used, or another version wrote the shard.
    """
    left_us = await _change(
        connection, resource.provider_model, "reset_cooldown", resource.domain.value
    )
    return left_us / 1e6


async def set_override_cap(
    connection: ServerConnection, provider_model: ProviderModelKey, cap: int | None
) -> int:
    """Bound a provider/model's static cap from above, whatever members register; None removes it.

    Lowering lowers the windows at once and takes no lease back; raising grants at once.

    Returns:
        The static cap now: the smallest of the alias caps and the override, 0 while nobody has
        registered the provider/model.

    Raises:
        ConfigurationError: no whole number from 1 to 10^9, or nobody ever used the provider/model
            on this server.
        CoordinatorError: the server could not be used, or another version wrote the shard.
    """
    if cap is not None:
        check_cap(f"the override cap of {provider_model}", cap, LARGEST_CAP)
    return await _change(connection, provider_model, "override_cap", "" if cap is None else cap)


async def evict_request_lease(
    connection: ServerConnection, provider_model: ProviderModelKey, lease_id: str
) -> bool:
    """End a lease by its encoded id, as an expired hold; its holder gets a notice.

    Returns:
        Whether the lease was there.

    Raises:
        ConfigurationError: the shard is being rebuilt, or nobody ever used the provider/model.
        CoordinatorError: the server could not be used, or another version wrote the shard.
    """
    ended = await _change(connection, provider_model, "evict", lease_id)
    if ended < 0:
        raise ConfigurationError(
            f"{provider_model} is being rebuilt from what its members state, so no lease can be"
            " ended now; ask again once that is over (forebay explain says when)."
        )
    return ended > 0


async def rebuild(connection: ServerConnection, provider_model: ProviderModelKey) -> Rebuilding:
    """Begin a rebuild of a shard, from what is left of it and what its members state (ADR 0023).

    The shard takes a new generation and grants nothing meanwhile; leases stay out, and members that
    run state theirs. Done where a shard is damaged and no member runs that would find it, or where
    an audit differs.

    Raises:
        ConfigurationError: nobody ever used the provider/model on this server.
        CoordinatorError: the server could not be used, or another version wrote the shard.
    """
    try:
        begun = await begin_rebuild(connection, request_shard(provider_model))
    except NeverUsedError as error:
        raise await _no_such_provider_model(connection, provider_model) from error
    await _call(connection, provider_model, "settle", "")
    return begun


async def _change(
    connection: ServerConnection,
    provider_model: ProviderModelKey,
    operation: str,
    subject: str | int,
) -> int:
    now_us, wake_us, value = await _call(connection, provider_model, operation, subject)
    while 0 < wake_us <= now_us:  # more became possible than one call grants
        now_us, wake_us, _ = await _call(connection, provider_model, "settle", "")
    return value


async def _call(
    connection: ServerConnection,
    provider_model: ProviderModelKey,
    operation: str,
    subject: str | int,
) -> tuple[int, int, int]:
    keys = request_shard(provider_model).all
    arguments = (SCHEMA_VERSION, operation, subject, operator_identity())
    try:
        return await run_operator_script(connection, "requests/administer", keys, arguments)
    except NeverUsedError as error:
        raise await _no_such_provider_model(connection, provider_model) from error


async def _no_such_provider_model(
    connection: ServerConnection, provider_model: ProviderModelKey
) -> ConfigurationError:
    used = [unquote(name) for name in await connection.live_shards(REQUEST_TAG)]
    there_is = f"expected one of {listed(used)}" if used else "and no other was used there either"
    return ConfigurationError(
        f"{provider_model} was never used on the server at {connection.address}, {there_is};"
        " correct the names or the URL."
    )
