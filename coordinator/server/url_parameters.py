"""The parameters of a server URL that Forebay accepts, and the reasons against others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal
from urllib.parse import parse_qsl

TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_CHECKS: Final = ("ssl_cert_reqs", "ssl_check_hostname")
TAKEN: Final[Mapping[str, tuple[str, ...]]] = {
    "redis": ("db",),
    "rediss": ("db", *TLS_FILES, *_TLS_CHECKS),
    "unix": ("db",),
    "redis+sentinel": ("db", "sentinel_username", "sentinel_password"),
    "redis+cluster": (),
    "rediss+cluster": (*TLS_FILES, *_TLS_CHECKS),
}
"""Scheme -> the URL parameters that it accepts."""

_OF_THE_CLIENT: Final = frozenset(
    {
        *("client_name", "decode_responses", "encoding", "encoding_errors"),
        *("health_check_interval", "lib_name", "lib_version", "max_connections", "protocol"),
        *("retry_on_error", "retry_on_timeout", "socket_connect_timeout", "socket_keepalive"),
        *("socket_read_size", "socket_timeout", "timeout"),
    }
)
"""Parameters of redis-py that tune a client and say nothing of the server."""

_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE: Final = frozenset({"0", "false", "f", "no", "n", "off"})

Verification = Literal["certificate_and_host", "certificate", "nothing"]
"""Checks of a server's TLS certificate by a client."""


class UnusableParameter(ValueError):  # noqa: N818 - a fault of the URL, told by `parse_url`
    """An error in a URL's parameters, with the remedy; the message shows no value."""


def read_parameters(scheme: str, query: str) -> dict[str, str]:
    """Return the parameters of a URL by name.

    Args:
        scheme: one of `TAKEN`.
        query: the part of the URL behind its ``?``.

    Raises:
        UnusableParameter: one that this scheme does not take, or that is there twice.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UnusableParameter(f"it says {twice[0]} twice; write it once")
    if tuning := [name for name in names if name in _OF_THE_CLIENT]:
        raise UnusableParameter(
            f"Forebay tunes its connections itself; write the URL without {_listed(tuning)}"
        )
    for name in names:
        if name not in TAKEN[scheme]:
            raise UnusableParameter(_reason(scheme, name))
    return dict(pairs)


def verification(parameters: Mapping[str, str]) -> Verification:
    """Return what TLS verifies of a server; by default certificate and host name.

    ``ssl_cert_reqs`` is ``required`` or ``none``, with Celery's spelling ``CERT_NONE``, too.

    Raises:
        UnusableParameter: a value that says neither yes nor no, or ``optional``, which verifies
            nothing that a client could name.
    """
    asked = parameters.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if asked not in {"required", "none"}:
        raise UnusableParameter("ssl_cert_reqs is neither required nor none; write one of them")
    checked = parameters.get("ssl_check_hostname", "true").lower()
    if checked not in _TRUE | _FALSE:
        raise UnusableParameter("ssl_check_hostname is neither true nor false; write one of them")
    if asked == "none":
        return "nothing"
    return "certificate_and_host" if checked in _TRUE else "certificate"


def _reason(scheme: str, name: str) -> str:
    match name:
        case "username" | "password":
            other = "unix://user:password@/path" if scheme == "unix" else "user:password@host"
            return f"{name} stands before the host, not behind a question mark; write {other}"
        case "host" | "port":
            return f"{name} stands in the URL itself; write redis://host:port"
        case "ssl" | "tls":
            return f"{name} is said by the scheme; write rediss:// for TLS, else leave it out"
        case "virtual_host" | "database" | "db":
            alone = f"a cluster has database 0 alone; leave {name} out"
            other = "the number of the database is another parameter; write db"
            return alone if scheme.endswith("+cluster") else other
        case _ if name in TAKEN["rediss"]:
            secure = "rediss+cluster" if scheme.endswith("+cluster") else "rediss"
            return f"{name} needs TLS; write {secure}://, or leave it out"
        case _:
            known = ", ".join(TAKEN[scheme]) or "none"
            return f"it has an unknown parameter (known here: {known})"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
