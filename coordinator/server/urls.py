"""Reading server URLs (design 06, *Where it runs*; design 06, *Trust*).

Nothing is opened, created or looked up, so a wrong URL is refused before anything starts. No error
message shows a password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.server.address import (
    DEFAULT_PORT,
    ClusterAddress,
    EmbeddedAddress,
    SentinelAddress,
    ServerAddress,
    TcpAddress,
    TlsFiles,
    UnixAddress,
)
from forebay.coordinator.server.url_parameters import (
    TLS_FILES,
    UnusableParameter,
    read_parameters,
    verification,
)

EXPECTED_FORMS = (
    "embedded://[name or /absolute/folder], redis://[user:password@]host[:port][/database], "
    "rediss://... (the same over TLS), valkey:// and valkeys:// (the same two), or "
    "unix:///absolute/path[?db=number], "
    "redis+sentinel://[user:password@]host[:port],.../service[/database], or for requests alone "
    "redis+cluster://[user:password@]host[:port],... and rediss+cluster://... (the same over TLS)"
)
_SENTINEL_PORT = 26379
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^,:/?#\[\]]+)"
_HOSTS = re.compile(rf"{_HOST}?(?::\d*)?|{_HOST}:\d+(?:,{_HOST}:\d+)+")
_SEVERAL = re.compile(rf"{_HOST}(?::\d+)?(?:,{_HOST}(?::\d+)?)*")
"""Where a URL names one server, several, or those of a cluster or Sentinels; what is none of these
may be a password."""
_SAME_SCHEMES = {
    "valkey": "redis",
    "valkeys": "rediss",
    "valkey+cluster": "redis+cluster",
    "valkeys+cluster": "rediss+cluster",
}
_OTHER_SCHEMES = {
    **dict.fromkeys(("tcp", "redis+tcp"), "write redis:// for it"),
    **dict.fromkeys(
        ("redis+ssl", "redis+tls", "redis-tls", "ssl", "tls"), "write rediss:// for it"
    ),
    **dict.fromkeys(
        ("redis+unix", "redis+socket", "redis-socket", "socket", "unix+redis", "valkey+unix"),
        "write unix:///absolute/path for it",
    ),
    **dict.fromkeys(("sentinel", "redis-sentinel"), "write redis+sentinel:// for it"),
    **dict.fromkeys(("cluster", "redis-cluster"), "write redis+cluster:// for it"),
    **dict.fromkeys(
        ("http", "https"), "this is a web address; write the server's redis:// or rediss:// URL"
    ),
}
"""Schemes that other libraries and hosts use, with the form to write here."""


def parse_url(url: str) -> ServerAddress:
    """Reads a server URL.

    ``embedded://`` is the data folder ``default``, ``embedded://name`` another one, both under
    ``$XDG_DATA_HOME/forebay`` or ``~/.local/share/forebay``; ``embedded:///folder`` is any folder.

    Args:
        url: one of ``EXPECTED_FORMS``; user, password and paths are percent-decoded.

    Returns:
        The address; equal URLs give equal addresses.

    Raises:
        ConfigurationError: anything else; the message shows the URL with its secrets masked.
    """
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        # `from None`: the cause quotes what it could not read, and that may be a password
        raise _refusal(url, "its host cannot be read") from None
    match _SAME_SCHEMES.get(parts.scheme, parts.scheme):
        case "embedded":
            return _embedded(url, parts)
        case "redis" | "rediss" as scheme:
            return _tcp(url, parts, scheme)
        case "unix":
            return _unix(url, parts)
        case "redis+sentinel" | "valkey+sentinel":
            return _sentinel(url, parts)
        case "redis+cluster" | "rediss+cluster" as scheme:
            return _cluster(url, parts, scheme)
        case "rediss+sentinel" | "valkeys+sentinel":
            raise ConfigurationError(
                f"server URL {mask_url(url)!r}: TLS with Sentinel is not supported by this "
                f"version yet; expected {EXPECTED_FORMS}; give the URL of a single server"
            )
        case scheme if scheme in _OTHER_SCHEMES:
            raise _refusal(url, f"its scheme is not known, {_OTHER_SCHEMES[scheme]}")
        case _:
            raise _refusal(url, "its scheme is not known, write redis://host:port")


def mask_url(url: str) -> str:
    """Return a URL, well-formed or not, without its passwords, for messages and logs.

    What stands before the last ``@`` is masked whole, since a password may hold any character;
    so are a "port" that is no number (``redis://:secret`` without its ``@host``) and the values
    of query parameters other than ``db``. Hosts and ports are shown, also several.

    Args:
        url: any text.

    Returns:
        The text with ``***`` for each such part.
    """
    masked = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\1***@", url.strip(), flags=re.DOTALL)
    masked = re.sub(r"^([^/?#]*://)([^/?#]*)", _masked_hosts, masked)
    return re.sub(r"([?&](?!db=)[^=&#]*=)[^&#]*", r"\1***", masked)


def _masked_hosts(found: re.Match[str]) -> str:
    scheme, hosts = found.groups()
    most = _SEVERAL if "sentinel" in scheme or "cluster" in scheme else _HOSTS
    if most.fullmatch(hosts):
        return f"{scheme}{hosts}"
    host, colon, rest = hosts.partition(":")
    return f"{scheme}{host}{colon}{rest and '***'}"


def _embedded(url: str, parts: SplitResult) -> EmbeddedAddress:
    if parts.query or parts.fragment or (parts.netloc and parts.path.strip("/")):
        raise _refusal(url, "embedded:// takes a name or an absolute folder and nothing else")
    if parts.path and not parts.netloc:
        folder = Path(os.path.normpath(unquote(parts.path)))
        if folder == folder.parent:
            raise _refusal(url, "the root folder cannot be a data folder")
        return EmbeddedAddress(data_dir=folder)
    name = parts.netloc or "default"
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise _refusal(url, "the name may hold letters, digits, dots, dashes and underscores")
    return EmbeddedAddress(data_dir=_data_home(url) / "forebay" / name)


def _data_home(url: str) -> Path:
    configured = Path(os.environ.get("XDG_DATA_HOME", ""))
    if configured.is_absolute():  # the XDG rule: a relative one is ignored
        return configured
    try:
        return Path.home() / ".local" / "share"
    except RuntimeError:
        raise _refusal(url, "this user has no home folder, so name an absolute folder") from None


def _tcp(url: str, parts: SplitResult, scheme: str) -> TcpAddress:
    if "," in parts.netloc.rpartition("@")[2]:
        raise _refusal(
            url, "it names several hosts; write one server, redis+cluster:// for the nodes of a"
            " cluster, or redis+sentinel:// for Sentinels"
        )  # fmt: skip
    if not parts.hostname:
        raise _refusal(url, "its host is missing, as in redis://localhost:6379/0")
    query = _query(url, parts, scheme)
    return TcpAddress(
        host=parts.hostname,
        port=_port(url, parts),
        database=_database(url, unquote(parts.path).strip("/"), query.get("db", "")),
        username=_decoded(parts.username),
        password=_decoded(parts.password),
        tls=_tls(url, query) if scheme == "rediss" else None,
    )


def _tls(url: str, query: Mapping[str, str]) -> TlsFiles:
    try:
        verifies = verification(query)
    except UnusableParameter as fault:
        raise _refusal(url, str(fault)) from None
    files = [query.get(name) or None for name in TLS_FILES]
    return TlsFiles(ca_file=files[0], cert_file=files[1], key_file=files[2], verifies=verifies)


def _cluster(url: str, parts: SplitResult, scheme: str) -> ClusterAddress:
    query = _query(url, parts, scheme)
    if unquote(parts.path).strip("/") not in {"", "0"}:
        raise _refusal(url, "a cluster has database 0 alone; leave the path out")
    return ClusterAddress(
        nodes=_peers(url, parts, DEFAULT_PORT),
        username=_decoded(parts.username),
        password=_decoded(parts.password),
        tls=_tls(url, query) if scheme == "rediss+cluster" else None,
    )


def _peers(url: str, parts: SplitResult, default_port: int) -> tuple[tuple[str, int], ...]:
    """Return host and port of each server that a URL lists."""
    hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
    if not all(host.hostname for host in hosts):
        raise _refusal(url, "a host is missing, as in redis+cluster://a:6379,b:6379")
    return tuple((host.hostname or "", _port(url, host, default_port)) for host in hosts)


def _sentinel(url: str, parts: SplitResult) -> SentinelAddress:
    query = _query(url, parts, "redis+sentinel")
    hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
    service, _, database = unquote(parts.path).strip("/").partition("/")
    if not service or not all(host.hostname for host in hosts):
        raise _refusal(url, "write each Sentinel and the service: redis+sentinel://a:26379,b/main")
    return SentinelAddress(
        sentinels=tuple((host.hostname or "", _port(url, host, _SENTINEL_PORT)) for host in hosts),
        service=service,
        database=_database(url, database, query.get("db", "")),
        username=_decoded(parts.username),
        password=_decoded(parts.password),
        sentinel_username=query.get("sentinel_username") or None,
        sentinel_password=query.get("sentinel_password") or None,
    )


def _port(url: str, parts: SplitResult, default: int = DEFAULT_PORT) -> int:
    try:
        port = default if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port == 0:
        # outside of the handler, since its error quotes what may be a password
        raise _refusal(url, "the port must be a number from 1 to 65535")
    return port


def _unix(url: str, parts: SplitResult) -> UnixAddress:
    if parts.hostname or not parts.path.strip("/"):
        raise _refusal(url, "the socket's path must be absolute, with three slashes: unix:///path")
    query = _query(url, parts, "unix")
    return UnixAddress(
        path=unquote(parts.path),
        database=_database(url, query.get("db", "")),
        username=_decoded(parts.username),
        password=_decoded(parts.password),
    )


def _query(url: str, parts: SplitResult, scheme: str) -> dict[str, str]:
    if parts.fragment:
        raise _refusal(url, "it has a #fragment; leave it out")
    try:
        # a parameter that would silently do nothing is worse than an error
        return read_parameters(scheme, parts.query)
    except UnusableParameter as fault:
        raise _refusal(url, str(fault)) from None


def _database(url: str, *said: str) -> int:
    numbers = set(filter(None, said))
    if not all(re.fullmatch(r"[0-9]{1,9}", text) for text in numbers):
        raise _refusal(url, "the database must be a number, as in /0")
    if len({int(text) for text in numbers}) > 1:
        raise _refusal(url, "its path and its db name two databases; write one of them")
    return int(next(iter(numbers), 0))


def _decoded(text: str | None) -> str | None:
    return unquote(text) or None if text else None


def _refusal(url: str, fault: str) -> ConfigurationError:
    return ConfigurationError(
        f"server URL {mask_url(url)!r} cannot be used: {fault}; expected {EXPECTED_FORMS}; "
        "correct the URL, percent-encoding special characters of user and password"
    )
