"""The settings of arq that work on a pool, and the reasons against others (docs/arq.md)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final
from urllib.parse import quote, urlencode

from arq.connections import RedisSettings
from arq.constants import default_queue_name
from arq.cron import CronJob
from arq.worker import Function, Worker, func

from forebay.contracts.checks import shown
from forebay.contracts.errors import ConfigurationError

WORKING: Final = frozenset(
    {
        "after_job_end",
        "allow_abort_jobs",
        "burst",
        "cron_jobs",
        "ctx",
        "expires_extra_ms",
        "functions",
        "handle_signals",
        "health_check_interval",
        "health_check_key",
        "job_completion_wait",
        "job_timeout",
        "keep_result",
        "keep_result_forever",
        "max_burst_jobs",
        "max_jobs",
        "max_tries",
        "on_job_end",
        "on_job_start",
        "on_shutdown",
        "on_startup",
        "poll_delay",
        "retry_jobs",
        "timezone",
    }
)
"""Settings of ``arq.Worker`` that mean on a pool what they mean in arq."""

REFUSED: Final[Mapping[str, str]] = {
    "job_deserializer": "jobs are JSON or msgpack, never pickle; name one: serializer='msgpack'",
    "job_serializer": "jobs are JSON or msgpack, never pickle; name one: serializer='msgpack'",
    "log_results": "results are never logged, as they may hold secrets; leave it out or say False",
    "queue_read_limit": "a worker reads no queue ahead, it is given as many jobs as it has slots;"
    " say max_jobs",
    "redis_pool": "a worker opens its own connection; say its server's url",
}
"""Settings of ``arq.Worker`` that a pool does not take, with the reason and the remedy."""

ELSEWHERE: Final = frozenset({"queue_name", "redis_settings"})
"""Settings of ``arq.Worker`` that a worker's ``pool`` and ``url`` replace."""

REFUSED_OF_CREATE_POOL: Final[Mapping[str, str]] = {
    "default_queue_name": "a pool stands for arq's queue; name it: pool=...",
    "job_deserializer": REFUSED["job_deserializer"],
    "job_serializer": REFUSED["job_serializer"],
    "retry": "MemberSettings says how long a call waits for its server: settings=...",
    "settings_": "the server is named by its url, the first argument",
}
"""Arguments of arq's ``create_pool`` that Forebay's does not take."""

_UNSET: Final[Mapping[str, tuple[object, ...]]] = {
    "log_results": (False,),
    "queue_name": (None, default_queue_name),
}
"""Values that leave a setting unset; None for every other setting."""

_OF_A_URL: Final = frozenset(
    {
        "database",
        "host",
        "password",
        "port",
        "ssl",
        "ssl_ca_certs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "unix_socket_path",
        "username",
    }
)
"""Fields of ``RedisSettings`` that work; over TLS a host name is always verified."""


def settings_of(settings_class: Any) -> dict[str, Any]:
    """Return what an arq settings class, or dict, sets for a worker of a pool.

    Attributes that ``arq.Worker`` does not know are the program's own, as in arq; those that the
    class inherits count as well.

    Args:
        settings_class: a class, such as arq's ``WorkerSettings``, or a mapping of settings.

    Returns:
        Settings by name, for `open_worker`.

    Raises:
        ConfigurationError: it sets what a pool does not take, or names no function.

    Example:
        >>> async def enrich(ctx, number):
        ...     return number * 2
        >>> class WorkerSettings:
        ...     functions = [enrich]
        ...     max_jobs = 4
        >>> sorted(forebay.settings_of(WorkerSettings))
        ['functions', 'max_jobs']
    """
    name = getattr(settings_class, "__name__", "the settings")
    if isinstance(settings_class, Mapping):
        found = dict(settings_class)
    else:
        known = inspect.signature(Worker).parameters
        found = {
            setting: getattr(settings_class, setting)
            for setting in known
            if hasattr(settings_class, setting)
        }
    found = {setting: value for setting, value in found.items() if _is_of_arq(setting)}
    check_settings(found, name)
    if not found.get("functions") and not found.get("cron_jobs"):
        raise ConfigurationError(
            f"{name} names no functions and no cron_jobs, expected at least one; name those that"
            " this worker is to run."
        )
    return found


def check_settings(settings: Mapping[str, Any], whose: str = "a worker") -> None:
    """Check that each setting is one that works on a pool.

    Args:
        settings: name -> value.
        whose: for the message.

    Raises:
        ConfigurationError: one is refused, or unknown.
    """
    for name, value in settings.items():
        if name in REFUSED and not is_unset(name, value):
            raise ConfigurationError(
                f"{whose} sets {name}, which a pool does not take: {REFUSED[name]}."
            )
        if not _is_of_arq(name):
            raise ConfigurationError(
                f"{whose} sets {shown(name)}, expected a setting of arq.Worker or of"
                " forebay.open_worker; correct its name."
            )


def named_functions(
    functions: Sequence[Any] | None, cron_jobs: Sequence[Any] | None
) -> tuple[list[Function], list[CronJob]]:
    """Return a worker's functions as arq knows them, and its cron jobs.

    Raises:
        ConfigurationError: one is not a coroutine function, cannot be imported, or is no cron job.
    """
    try:
        named = [func(function) for function in functions or ()]
    except (RuntimeError, ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"a function of the worker cannot be used ({error}), expected a coroutine function,"
            " what arq.func returns or a name to import; correct `functions`."
        ) from error
    for job in cron_jobs or ():
        if not isinstance(job, CronJob):
            raise ConfigurationError(
                f"cron_jobs holds {shown(job)}, expected what arq.cron returns; wrap it: cron(...)."
            )
    return named, list(cron_jobs or ())


def is_unset(name: str, value: object) -> bool:
    """Whether a value of a setting asks for nothing."""
    return any(value is unset or value == unset for unset in _UNSET.get(name, (None,)))


def pool_of(pool: str | None, settings: Mapping[str, Any]) -> str:
    """Return the name of a worker's pool: the given one, or ``default``.

    Raises:
        ConfigurationError: none was said, and the settings name a queue of arq's.
    """
    queue = settings.get("queue_name")
    if pool is None and not is_unset("queue_name", queue):
        raise ConfigurationError(
            f"the settings name queue_name {shown(queue)}, and a pool stands for arq's queue; say"
            " which one, as in create_pool: pool=... (forebay worker --pool ...)."
        )
    return "default" if pool is None else pool


def address_of(url: str | None, settings: Mapping[str, Any]) -> str:
    """Return the URL of a worker's server: the given one, or that of ``redis_settings``.

    Raises:
        ConfigurationError: neither was said, or the settings say what no URL can.
    """
    if url is not None:
        return url
    if settings.get("redis_settings") is None:
        raise ConfigurationError(
            "neither a url nor redis_settings were given, expected one; say the server's url"
            " (forebay worker --url)."
        )
    return url_of(settings["redis_settings"])


def url_of(redis_settings: RedisSettings) -> str:
    """Return the URL of the server that arq's own settings name.

    Raises:
        ConfigurationError: they are of another type, or say what no URL can.
    """
    if not isinstance(redis_settings, RedisSettings):
        raise ConfigurationError(
            f"redis_settings is of type {type(redis_settings).__name__}, expected"
            " arq.connections.RedisSettings; make one, or say the server's url."
        )
    for field in fields(redis_settings):
        is_default = getattr(redis_settings, field.name) == field.default
        if field.name not in _OF_A_URL and not is_default:
            raise ConfigurationError(
                f"redis_settings sets {field.name}, which Forebay does not take from there; leave"
                " it out, or say the server's url instead (forebay worker --url)."
            )
    return _url_of(redis_settings)


def _url_of(settings: RedisSettings) -> str:
    user = quote(settings.username or "", safe="")
    if settings.password:
        user += f":{quote(settings.password, safe='')}"
    user += "@" if user else ""
    if settings.unix_socket_path:
        return f"unix://{user}{quote(settings.unix_socket_path)}?db={settings.database}"
    if not isinstance(settings.host, str):
        raise ConfigurationError(
            "redis_settings names several hosts; name one, or say the server's url instead, for"
            " Sentinels redis+sentinel://host:port,.../service (forebay worker --url)."
        )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    place = f"{user}{host}:{settings.port}/{settings.database}"
    if not settings.ssl:
        return f"redis://{place}"
    files = {
        name: value
        for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        if (value := getattr(settings, name))
    }
    return f"rediss://{place}" + (f"?{urlencode(files)}" if files else "")


def check_create_pool(arguments: Mapping[str, Any], takes: Callable[..., object]) -> None:
    """Raise for arguments of ``create_pool`` that only arq's own takes, or none does.

    Args:
        arguments: what was passed besides its own.
        takes: Forebay's ``create_pool``.

    Raises:
        ConfigurationError: there is one.
    """
    own = ", ".join(name for name in inspect.signature(takes).parameters if name != "arqs")
    for name in arguments:
        reason = REFUSED_OF_CREATE_POOL.get(name, f"it is unknown; expected one of {own}")
        raise ConfigurationError(f"create_pool got {name}, which it does not take: {reason}.")


def _is_of_arq(name: str) -> bool:
    return name in WORKING or name in REFUSED or name in ELSEWHERE
