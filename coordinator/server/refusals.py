"""Typed errors for errors of a server: the one place that reads their codes.

Rules: design 06, *When Redis is away*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from forebay.contracts.errors import (
    AttemptIdUsed,
    ConfigurationError,
    CoordinatorError,
    CoordinatorFull,
    CoordinatorUnavailable,
    ForebayError,
    SchemaMismatch,
    ShardDamaged,
)
from forebay.coordinator.keys import SCHEMA_VERSION
from forebay.coordinator.scripts.composing import FUNCTION_NOT_FOUND, Script
from forebay.coordinator.server.address import ServerAddress
from forebay.coordinator.server.rights import MEMBER_RULES, POOL_RULES

EXPECTED_SERVER: Final = "Redis 7.0 or newer, or Valkey 8 or newer"

_GRANT: Final = f"grant it {' '.join(MEMBER_RULES)}, and for task pools {' '.join(POOL_RULES)}"

_PASSING: Final = frozenset(
    {
        *("TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "ASK", "MOVED"),
        *("NOREPLICAS", "MISCONF", "BUSY"),
    }
)


class NotAMemberError(Exception):
    """The shard does not know this member, or no longer."""


def is_passing(error: ResponseError) -> bool:
    """Whether an error reply reports a temporary state of the server.

    Rules: design 06, *When Redis is away*.

    A failover, a slot that moves, a replica or a disk that is away, a script that runs too long,
    functions that somebody flushed.
    """
    return (
        isinstance(error, ReadOnlyError)
        or str(error) == FUNCTION_NOT_FOUND
        or str(error).partition(" ")[0] in _PASSING
    )


def is_away(error: RedisError | OSError) -> bool:
    """Whether an error means that the server does not answer, or cannot serve now."""
    is_connection = isinstance(error, RedisConnectionError | RedisTimeoutError | OSError)
    return is_connection or (isinstance(error, ResponseError) and is_passing(error))


def may_be_of_other_code(error: ResponseError) -> bool:
    """Whether an error reply is unknown to this version, so other code may have made it."""
    is_known = isinstance(error, NoPermissionError | OutOfMemoryError | ReadOnlyError)
    return not is_known and str(error).partition(" ")[0] not in {"NOMEMBER", "SCHEMA", *_PASSING}


def refusal(script: Script, keys: Sequence[str], error: ResponseError) -> Exception:
    """Return the typed exception for a script's error reply: the one place that reads its code.

    Args:
        script: what was run.
        keys: its KEYS, of a shard.
        error: what the server answered.
    """
    message = str(error)
    code, _, detail = message.partition(" ")
    if isinstance(error, NoPermissionError):
        return forbidden(error)
    if isinstance(error, OutOfMemoryError):
        return CoordinatorFull(
            "the server is out of memory and refuses new work; raise its maxmemory or free some."
            " What frees still works."
        )
    match code:
        case "NOMEMBER":
            return NotAMemberError(detail)
        case "SCHEMA":
            shard = keys[0].rpartition(":")[0]
            return SchemaMismatch(
                f"the shard {shard} has schema version {detail}, and this version of forebay speaks"
                f" {SCHEMA_VERSION} alone; upgrade the older members, or, where none runs any more,"
                f" delete the shard's keys ({shard}:*) or use another server."
            )
        case "DAMAGED":
            return ShardDamaged(detail.partition(" ")[0], f"{detail}.")
        case _:
            return CoordinatorError(
                f"script {script.name} failed: {script.locate(message)}; please report this."
            )


def reading_error(
    script: Script, keys: Sequence[str], error: RedisError | OSError, address: ServerAddress
) -> Exception:
    """Return the typed exception for a failed read of a shard."""
    if isinstance(error, ResponseError) and str(error).startswith(("SCHEMA ", "DAMAGED ")):
        return refusal(script, keys, error)
    return connection_error(error, address, f"running {script.name}")


def forbidden(error: NoPermissionError) -> ConfigurationError:
    """Return the typed exception for a user who lacks rights that a member needs."""
    return ConfigurationError(
        f"the server forbids this user what a member needs ({error}); {_GRANT}, or name another"
        " user in the URL."
    )


def refused_operation(code: str, detail: str) -> ForebayError:
    """Return the typed exception for one operation of a batch that was refused."""
    if code == "ATTEMPT_ID_USED":
        attempt_id = unquote(detail)
        return AttemptIdUsed(
            attempt_id,
            f"attempt id {attempt_id!r} was used before; make one per attempt, or leave it"
            " out: RequestAdmissionItem makes its own.",
        )
    if code == "NOMEMBER":
        return CoordinatorUnavailable(
            "this process has left the shard, so that nothing is given to it; connect anew."
        )
    return CoordinatorError(f"the shard refused an operation: {code} {detail}; please report this.")


def no_pool_on(address: ServerAddress) -> str:
    """Return why a cluster serves no task pools, and what to do."""
    return (
        f"{address} is a cluster, where a task pool cannot be, as arq's keys have no hash tag;"
        " expected a server outside cluster mode for pools: give its URL to workers and to what"
        " works with pools, and the cluster's to programs that take part in requests alone."
    )


def no_cluster_at(address: ServerAddress) -> str:
    """Return why a server outside cluster mode is not reached by the URL of a cluster."""
    return (
        f"{address} names a server with cluster-enabled no, expected nodes of a cluster; write"
        " redis://host:port, or rediss://, for one server."
    )


def connection_error(
    error: RedisError | OSError, address: ServerAddress, attempt: str
) -> ForebayError:
    """Return the typed error for a failed attempt to use the server; no bare redis error escapes.

    Args:
        error: what redis-py or the socket raised.
        address: named, with its password masked, in the message.
        attempt: what was tried, as in "asking for INFO".

    Returns:
        The error to raise ``from`` the given one.
    """
    if isinstance(error.__cause__, RedisError):
        # on a unix socket redis-py wraps what the server answered to the login
        error = error.__cause__
    cause = str(error) or type(error).__name__
    match error:
        # these three before the ConnectionError and ResponseError from which they derive
        case AuthenticationError() | AuthenticationWrongNumberOfArgsError() | AuthorizationError():
            return ConfigurationError(
                f"the server at {address} refused the login ({cause}); expected a user and "
                "password that it knows; correct them in the URL: redis://user:password@host:port"
            )
        case NoPermissionError():
            return ConfigurationError(
                f"the server at {address} forbids this user what Forebay needs ({cause}); expected "
                f"a member's rights; {_GRANT}, or name another user in the URL"
            )
        case _ if "CERTIFICATE_VERIFY_FAILED" in cause:
            return ConfigurationError(
                f"the certificate of the server at {address} cannot be verified ({cause}); expected"
                " one of an authority that this machine knows; name the server's own authority in"
                " the URL: ?ssl_ca_certs=/path/ca.pem, or verify nothing: ?ssl_cert_reqs=none"
            )
        case RedisConnectionError() | RedisTimeoutError() | OSError():
            return CoordinatorUnavailable(
                f"no answer from the server at {address}, {attempt} ({cause}); expected "
                f"{EXPECTED_SERVER}; is it running, and is the URL right? A private server on this "
                "machine needs no setup: embedded://"
            )
        case ResponseError() if is_passing(error):
            return CoordinatorUnavailable(
                f"the server at {address} cannot serve now, {attempt} ({cause}); expected"
                " a primary with its replicas and no long script; try again, or look at it."
            )
        case _:
            return ConfigurationError(
                f"the server at {address} answered {attempt} with an error ({cause}); expected "
                f"{EXPECTED_SERVER}, and a database that it has; correct the URL"
            )
