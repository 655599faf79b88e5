"""Listening sockets of the HTTP servers that Forebay runs."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from forebay.contracts.errors import ConfigurationError

BACKLOG: Final = 2048


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket; port 0 takes a free one.

    Raises:
        ConfigurationError: the address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {reason}; choose another host or port, "
            "port 0 for a free one"
        ) from exc
    return listener


def root_url_of(listener: socket.socket) -> str:
    """Return the URL of what listens, without a path."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def base_url_of(listener: socket.socket) -> str:
    """Return the URL to give to OpenAI's client as ``base_url``."""
    return f"{root_url_of(listener)}/v1"


def is_loopback(address: str) -> bool:
    """Return whether an address, as a socket gives it, can be reached from this host alone."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
