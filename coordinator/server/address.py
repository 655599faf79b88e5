"""Server addresses as values (design 06, *Where it runs*; design 06, *Trust*).

No ``repr`` or ``str`` of an address shows a password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urlencode

from forebay.coordinator.server.url_parameters import TLS_FILES, Verification

DEFAULT_PORT: Final = 6379


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
    """PEM files for TLS, and what is verified with them.

    Attributes:
        ca_file: authorities to trust instead of the system's.
        cert_file: this client's certificate, where the server asks for one.
        key_file: the private key of ``cert_file``.
        verifies: all that can be, unless the URL says ``ssl_cert_reqs=none`` (some hosts give
            servers certificates that nobody signed) or ``ssl_check_hostname=false``.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verifies: Verification = "certificate_and_host"

    def __str__(self) -> str:
        relaxed = {"nothing": "ssl_cert_reqs=none", "certificate": "ssl_check_hostname=false"}
        files = dict(zip(TLS_FILES, (self.ca_file, self.cert_file, self.key_file), strict=True))
        said = urlencode({name: path for name, path in files.items() if path}, safe="/")
        return "&".join(filter(None, [said, relaxed.get(self.verifies, "")]))


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
    port: int = DEFAULT_PORT
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        scheme = "redis" if self.tls is None else "rediss"
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = f"?{self.tls}" if self.tls is not None and str(self.tls) else ""
        return f"{scheme}://{_masked_user(self)}{host}:{self.port}/{self.database}{query}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelAddress:
    """The primary that Sentinels name at each connect.

    Attributes:
        sentinels: host and port of each Sentinel, in the order in which they are asked.
        service: the name under which they watch the primary.
        database: number of the logical database.
        username: ACL user of the primary, or None for ``default``.
        password: its password; never shown.
        sentinel_username: ACL user of the Sentinels.
        sentinel_password: its password; never shown.
    """

    sentinels: tuple[tuple[str, int], ...]
    service: str
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        place = f"{_listed(self.sentinels)}/{quote(self.service)}/{self.database}"
        return f"redis+sentinel://{_masked_user(self)}{place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAddress:
    """A Redis Cluster, each node of which tells which node serves which hash slot.

    Attributes:
        nodes: host and port of some of its nodes.
        username: ACL user on every node, or None for ``default``.
        password: its password; never shown.
        tls: None for ``redis+cluster://``, the files to use for ``rediss+cluster://``.
    """

    nodes: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        scheme = "redis" if self.tls is None else "rediss"
        query = f"?{self.tls}" if self.tls is not None and str(self.tls) else ""
        return f"{scheme}+cluster://{_masked_user(self)}{_listed(self.nodes)}{query}"

    def node(self, peer: tuple[str, int]) -> TcpAddress:
        """Return the address of one node by its host and port."""
        return TcpAddress(
            host=peer[0],
            port=peer[1],
            username=self.username,
            password=self.password,
            tls=self.tls,
        )


NodeAddress = TcpAddress | UnixAddress | SentinelAddress
"""Where one server is that a client can connect to."""
ServerAddress = EmbeddedAddress | NodeAddress | ClusterAddress
Transport = Literal["tcp", "tls", "unix", "sentinel"]


def transport(address: NodeAddress) -> Transport:
    """Return how a server is reached; `sentinel` is TCP to the primary that Sentinels name."""
    match address:
        case TcpAddress():
            return "tcp" if address.tls is None else "tls"
        case UnixAddress():
            return "unix"
        case SentinelAddress():
            return "sentinel"


def _listed(peers: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in peers)


def _masked_user(address: NodeAddress | ClusterAddress) -> str:
    if address.username is None and address.password is None:
        return ""
    secret = "" if address.password is None else ":***"
    return f"{quote(address.username or '')}{secret}@"
