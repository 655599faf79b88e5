"""Server addresses: what a URL may say, as values (spec 06, "Where it runs" and "Trust").

Parsing is pure: nothing is opened, created or looked up, so a wrong address is refused before
anything starts. No ``repr`` or ``str`` of an address and no error message shows a password.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from forebay.contracts.errors import ConfigurationError

EXPECTED_FORMS = (
    "embedded://[name or /absolute/folder], redis://[user:password@]host[:port][/database], "
    "rediss://... (the same over TLS) or unix:///absolute/path[?db=number]"
)
_DEFAULT_PORT = 6379
_LATER_SCHEMES = {"redis+sentinel": "Sentinel", "redis+cluster": "Redis Cluster"}
_TLS_PARAMETERS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedAddress:
    """A private server that this process starts and that ends with it.

    Attributes:
        data_dir: absolute folder of its append-only file and log.
    """

    data_dir: Path

    def __str__(self) -> str:
        return f"embedded://{quote(str(self.data_dir))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files for TLS; the server's certificate and host name are always verified.

    Attributes:
        ca_file: authorities to trust instead of the system's.
        cert_file: this client's certificate, where the server asks for one.
        key_file: the private key of ``cert_file``.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpAddress:
    """A server reached over TCP, in clear or over TLS.

    Attributes:
        host: name or IP address, IPv6 without brackets.
        port: 1 to 65535.
        database: number of the logical database.
        username: ACL user, or None for ``default``.
        password: its password; never shown.
        tls: None for ``redis://``, the files to use for ``rediss://``.
    """

    host: str
    port: int = _DEFAULT_PORT
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        scheme = "redis" if self.tls is None else "rediss"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{_masked_user(self)}{host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixAddress:
    """A server reached over a unix socket.

    Attributes:
        path: absolute path of the socket.
        database: number of the logical database.
        username: ACL user, or None for ``default``.
        password: its password; never shown.
    """

    path: str
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"unix://{_masked_user(self)}{quote(self.path)}?db={self.database}"


ServerAddress = EmbeddedAddress | TcpAddress | UnixAddress


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
    match parts.scheme:
        case "embedded":
            return _embedded(url, parts)
        case "redis" | "rediss":
            return _tcp(url, parts)
        case "unix":
            return _unix(url, parts)
        case scheme if scheme in _LATER_SCHEMES:
            raise ConfigurationError(
                f"server URL {mask_url(url)!r}: {_LATER_SCHEMES[scheme]} is not supported by this "
                f"version yet; expected {EXPECTED_FORMS}; give the URL of a single server"
            )
        case _:
            raise _refusal(url, "its scheme is not known")


def mask_url(url: str) -> str:
    """A URL for messages and logs: well-formed or not, it shows no password.

    What stands before the last ``@`` is masked whole, since a password may hold any character;
    so are a "port" that is no number (``redis://:secret`` without its ``@host``) and the values
    of query parameters other than ``db``.

    Args:
        url: any text.

    Returns:
        The text with ``***`` for each such part.
    """
    masked = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\1***@", url.strip(), flags=re.DOTALL)
    masked = re.sub(r"(://[^/?#\[]*:)(?!\d*(?:[/?#]|$))[^/?#]*", r"\1***", masked)
    return re.sub(r"([?&](?!db=)[^=&#]*=)[^&#]*", r"\1***", masked)


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


def _tcp(url: str, parts: SplitResult) -> TcpAddress:
    if not parts.hostname:
        raise _refusal(url, "its host is missing, as in redis://localhost:6379/0")
    accepted = _TLS_PARAMETERS if parts.scheme == "rediss" else set()
    query = _query(url, parts, accepted)
    return TcpAddress(
        host=parts.hostname,
        port=_port(url, parts),
        database=_database(url, parts.path.removeprefix("/")),
        username=_decoded(parts.username),
        password=_decoded(parts.password),
        tls=TlsFiles(
            ca_file=query.get("ssl_ca_certs"),
            cert_file=query.get("ssl_certfile"),
            key_file=query.get("ssl_keyfile"),
        )
        if parts.scheme == "rediss"
        else None,
    )


def _port(url: str, parts: SplitResult) -> int:
    try:
        port = _DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port == 0:
        # outside of the handler, since its error quotes what may be a password
        raise _refusal(url, "the port must be a number from 1 to 65535")
    return port


def _unix(url: str, parts: SplitResult) -> UnixAddress:
    if parts.hostname or not parts.path.strip("/"):
        raise _refusal(url, "the socket's path must be absolute, with three slashes: unix:///path")
    query = _query(url, parts, {"db"})
    return UnixAddress(
        path=unquote(parts.path),
        database=_database(url, query.get("db", "")),
        username=_decoded(parts.username),
        password=_decoded(parts.password),
    )


def _query(url: str, parts: SplitResult, accepted: set[str]) -> dict[str, str]:
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    # a parameter that would silently do nothing is worse than an error
    if parts.fragment or not query.keys() <= accepted:
        known = ", ".join(sorted(accepted)) or "none"
        raise _refusal(url, f"it has an unknown parameter or a #fragment (known here: {known})")
    return query


def _database(url: str, text: str) -> int:
    if text and not re.fullmatch(r"[0-9]{1,9}", text):
        raise _refusal(url, "the database must be a number, as in /0")
    return int(text or 0)


def _decoded(text: str | None) -> str | None:
    return unquote(text) or None if text else None


def _masked_user(address: TcpAddress | UnixAddress) -> str:
    if address.username is None and address.password is None:
        return ""
    secret = "" if address.password is None else ":***"
    return f"{quote(address.username or '')}{secret}@"


def _refusal(url: str, fault: str) -> ConfigurationError:
    return ConfigurationError(
        f"server URL {mask_url(url)!r} cannot be used: {fault}; expected {EXPECTED_FORMS}; "
        "correct the URL, percent-encoding special characters of user and password"
    )
