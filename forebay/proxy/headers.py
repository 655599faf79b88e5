"""The headers that a proxy passes on: all but those of one connection (RFC 9110, 7.6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

Header = tuple[bytes, bytes]

OWN_PREFIX: Final = b"x-forebay-"
"""Begins the names of headers between the proxy and its clients; no provider gets them."""

_OF_ONE_CONNECTION: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_OF_A_REQUEST: Final = _OF_ONE_CONNECTION | {b"host", b"content-length", b"expect"}


def by_name(headers: Iterable[Header]) -> dict[str, str]:
    """Return headers by lower-case name; the last one of a name counts."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def is_anthropic(path: str, headers: Mapping[str, str]) -> bool:
    """Whether a call is of Anthropic's API.

    Args:
        path: of the call.
        headers: of the call, by their names in lower case.
    """
    return "anthropic-version" in headers or path.endswith(("/v1/messages", "/v1/messages/"))


def request_headers(headers: Iterable[Header], authority: str, body: bytes) -> list[Header]:
    """Return the headers of a request to a provider: the client's headers, its key among them.

    Args:
        headers: the client's, names in lower case.
        authority: host and port of the provider.
        body: what is sent; its length replaces a chunked encoding.
    """
    received = list(headers)
    dropped = _OF_A_REQUEST | _named_by_connection(received)
    passed: list[Header] = [(b"host", authority.encode())]
    passed += [
        (name, value)
        for name, value in received
        if name not in dropped and not name.startswith(OWN_PREFIX)
    ]
    if body or any(name in {b"content-length", b"transfer-encoding"} for name, _ in received):
        passed.append((b"content-length", b"%d" % len(body)))
    return passed


def response_headers(
    headers: Iterable[Header], own: Mapping[str, str], location_of: Callable[[bytes], bytes]
) -> list[Header]:
    """Return the headers of a response to a client: the provider's headers, and the proxy's own.

    Args:
        headers: the provider's.
        own: names after `OWN_PREFIX`, and their values.
        location_of: returns where a client finds what a ``location`` names.
    """
    received = [(name.lower(), value) for name, value in headers]
    dropped = _OF_ONE_CONNECTION | _named_by_connection(received)
    if any(name == b"transfer-encoding" for name, _ in received):
        dropped |= {b"content-length"}  # RFC 9112, 6.3: transfer-encoding overrides it
    passed = [
        (name, location_of(value) if name == b"location" else value)
        for name, value in received
        if name not in dropped and not name.startswith(OWN_PREFIX)
    ]
    return passed + own_headers(own)


def own_headers(own: Mapping[str, str]) -> list[Header]:
    """Return the proxy's own headers as bytes."""
    return [(OWN_PREFIX + name.encode(), value.encode()) for name, value in own.items()]


def _named_by_connection(headers: Iterable[Header]) -> frozenset[bytes]:
    return frozenset(
        one.strip().lower()
        for name, value in headers
        if name == b"connection"
        for one in value.split(b",")
    )
