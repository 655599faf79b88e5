"""Provider and tenant of a call of the proxy, read from path and headers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from forebay.contracts.checks import shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestGroupSpec
from forebay.proxy.headers import is_anthropic

TENANT_HEADER: Final = "x-forebay-tenant"
WEIGHT_HEADER: Final = "x-forebay-weight"

_ANTHROPIC: Final = "anthropic"
_KNOWN_HOSTS: Final = {"api.openai.com": "openai", "api.anthropic.com": _ANTHROPIC}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_RESERVED_NAMES: Final = frozenset({"t", "v1"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_USER: Final = re.compile(r"(?<=://)[^/]*@|^[^/]*@")
_QUERY: Final = re.compile(r"([?#]).+", re.DOTALL)
_SEPARATOR: Final = re.compile(r"[/\\]")
_VERSION: Final = re.compile(rb"v[0-9]+[a-z0-9]*")
_DOTS: Final = frozenset({".", ".."})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A provider that calls are sent to.

    Attributes:
        name: the provider's name in the fleet, and the first part of the paths that choose it.
        scheme: ``http`` or ``https``.
        authority: host, with the port where it is not the scheme's default.
        host: the same without the port; an IPv6 address without its brackets.
        port: None for the scheme's own.
        path: what goes before the path of each call, such as ``/openai``; often "".
    """

    name: str
    scheme: str
    authority: str
    host: str
    port: int | None
    path: bytes


class UnknownUpstreamError(ConfigurationError):
    """The path of a call names no upstream where it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The destination of one call: provider, path and tenant.

    Attributes:
        upstream: the provider.
        raw_path: path and query, as the provider gets them.
        prefix: what stood before the provider's own path: tenant, upstream.
        group: the tenant and its weight; None leaves the group to the resource.
    """

    upstream: Upstream
    raw_path: bytes
    prefix: bytes
    group: RequestGroupSpec | None

    def location_for_client(self, location: bytes) -> bytes:
        """Return a redirect's target as a path of the proxy, so that it is called under a lease.

        A target at another host, and a relative one, stay as they are.
        """
        upstream = self.upstream
        path = location.removeprefix(f"{upstream.scheme}://{upstream.authority}".encode())
        is_own = path.startswith(upstream.path + b"/") and not path.startswith(b"//")
        return self.prefix + path.removeprefix(upstream.path) if is_own else location


def parse_upstream(text: str) -> Upstream:
    """Read ``[NAME=]URL``; without a name it is the known provider's, else host and port.

    A ``/v1`` at the URL's end is left out: it is part of the paths that clients ask for.

    Raises:
        ConfigurationError: the text is no ``[NAME=]URL``, or the name cannot begin a path.
    """
    name, has_name, url = text.partition("=")
    if not has_name or "/" in name:
        name, url = "", text
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port, or brackets, that are none
        parts, port = urlsplit(""), None
    is_bad = parts.scheme not in _DEFAULT_PORTS or not parts.hostname
    if is_bad or parts.query or parts.fragment or parts.username is not None:
        raise ConfigurationError(
            f"--upstream {shown(_without_key(text))}: expected [NAME=]URL with http:// or https://"
            " and a host, and no key, query or fragment, such as https://api.openai.com; correct"
            " it."
        )
    host = parts.hostname or ""
    if port == _DEFAULT_PORTS[parts.scheme]:
        port = None
    bracketed = f"[{host}]" if ":" in host else host
    authority = bracketed if port is None else f"{bracketed}:{port}"
    name = name or _KNOWN_HOSTS.get(host, authority)
    if _NAME.fullmatch(name) is None or name in _RESERVED_NAMES:
        raise ConfigurationError(
            f"--upstream {shown(text)}: the name {shown(name)} cannot begin a path, expected"
            " letters, digits and . _ : -, and neither t nor v1; write --upstream NAME=URL."
        )
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return Upstream(
        name=name,
        scheme=parts.scheme,
        authority=authority,
        host=host,
        port=port,
        path=path.encode(),
    )


def _without_key(text: str) -> str:
    """Return an upstream without parts that may hold a key: user, query and fragment."""
    return _USER.sub("***@", _QUERY.sub(r"\1***", text))


class Upstreams:
    """All providers of a proxy, and the rule by which a call is sent to one of them.

    A path that begins with an upstream's name chooses that one, and is sent on without the name.
    Any other call goes by its API: one of Anthropic's to the upstream named ``anthropic``, the rest
    to the first of the others. Where there are several upstreams, such a path must begin with a
    version (``/v1/``): a misspelt name would hand one provider's key to another.

    Args:
        upstreams: in the order of preference.

    Raises:
        ConfigurationError: none, or two of the same name.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        if not upstreams:
            raise ConfigurationError(
                "no upstream was given, expected at least one; add --upstream"
                " https://api.openai.com, or another provider's URL."
            )
        self._by_name: dict[str, Upstream] = {}
        for one in upstreams:
            if one.name in self._by_name:
                raise ConfigurationError(
                    f"two upstreams are named {one.name!r}, expected a name of its own for each;"
                    " write --upstream NAME=URL."
                )
            if any(one.authority == other.authority for other in self._by_name.values()):
                raise ConfigurationError(
                    f"two upstreams are at {one.authority}, expected one: a host's calls share one"
                    " limit, under one name; leave one out, and name its paths in base_url."
                )
            self._by_name[one.name] = one
        self._first = upstreams[0]
        self._anthropic = self._by_name.get(_ANTHROPIC, self._first)
        self._other = next((one for one in upstreams if one.name != _ANTHROPIC), self._first)

    @property
    def providers(self) -> Mapping[str, str]:
        """The names by host, as `forebay.HttpResolver` takes them."""
        return {
            one.host if one.port is None else f"{one.host}:{one.port}": one.name
            for one in self._by_name.values()
        }

    def destination_of(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Destination:
        """Return the destination of a call.

        Args:
            scope: of ASGI; its raw path and query are read.
            headers: of the call, by their names in lower case.

        Raises:
            UnknownUpstreamError: its path names no upstream where it must.
            ConfigurationError: its tenant, weight or path cannot be used.
        """
        asked: bytes = scope["raw_path"]
        tenant, path = _tenant_of(asked)
        _check_path(path)
        name, rest = _first_part(path)
        upstream = self._by_name.get(unquote(name.decode("latin-1"))) if name else None
        if upstream is not None:
            path = rest or b"/"
        elif len(self._by_name) > 1 and not _VERSION.fullmatch(name):
            raise UnknownUpstreamError(
                f"the path begins with {shown(name.decode('latin-1'))}, expected an upstream"
                f" ({', '.join(self._by_name)}) or a version such as v1; correct base_url."
            )
        else:
            speaks_anthropic = is_anthropic(path.decode("latin-1"), headers)
            upstream = self._anthropic if speaks_anthropic else self._other
        query: bytes = scope["query_string"]
        raw_path = upstream.path + path + (b"?" + query if query else b"")
        if tenant is None:
            tenant = _utf8(headers.get(TENANT_HEADER))
        group = _group_of(tenant, headers.get(WEIGHT_HEADER))
        prefix = asked.removesuffix(path)
        return Destination(upstream=upstream, raw_path=raw_path, prefix=prefix, group=group)


def _tenant_of(path: bytes) -> tuple[str | None, bytes]:
    """Take ``/t/<tenant>`` off the front of a path."""
    if not path.startswith(b"/t/"):
        return None, path
    tenant, _, rest = path[3:].partition(b"/")
    try:
        return unquote(tenant.decode("latin-1"), errors="strict"), b"/" + rest
    except UnicodeError:
        raise ConfigurationError(
            f"the tenant {shown(tenant.decode('latin-1'))} of the path is no UTF-8, expected UTF-8"
            " with %-escapes; quote it so."
        ) from None


def _utf8(value: str | None) -> str | None:
    """Return a header's value as UTF-8, as a path is read, so that both name the same tenant."""
    try:
        return None if value is None else value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _check_path(path: bytes) -> None:
    """Refuse a path that a provider may read as one above the upstream's own.

    Raises:
        ConfigurationError: it has a part ``..`` or ``.``, also where that is quoted.
    """
    parts = _SEPARATOR.split(unquote(path.decode("latin-1")))
    if not _DOTS.isdisjoint(parts):
        raise ConfigurationError(
            f"the path {shown(path.decode('latin-1'))} has a part `.` or `..`, expected none, as it"
            " may lead out of the upstream's path; write the path without it."
        )


def _first_part(path: bytes) -> tuple[bytes, bytes]:
    name, slash, rest = path[1:].partition(b"/")
    return name, slash + rest


def _group_of(tenant: str | None, weight: str | None) -> RequestGroupSpec | None:
    if tenant is None and weight is None:
        return None
    if weight is None:
        return RequestGroupSpec(key=tenant)
    try:
        number = float(weight)
    except ValueError:
        raise ConfigurationError(
            f"{WEIGHT_HEADER} is {shown(weight)}, expected a number in 0.001..1000; correct it."
        ) from None
    return RequestGroupSpec(key=tenant, weight=number)
