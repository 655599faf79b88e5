"""The proxies that the environment names, as clients of ``httpx`` and ``httpx2`` read it."""

from __future__ import annotations

import ipaddress
import urllib.request
from collections.abc import Callable
from typing import Any


def proxy_mounts(make: Callable[[str], Any]) -> dict[str, Any]:
    """Return transports by URL pattern for the proxies that the environment names.

    Args:
        make: makes a transport through the proxy of this URL.
    """
    found = urllib.request.getproxies()
    exempt = [host.strip() for host in found.get("no", "").split(",") if host.strip()]
    if "*" in exempt:
        return {}
    mounts: dict[str, Any] = {}
    for scheme in ("http", "https", "all"):
        url = found.get(scheme)
        if url:
            mounts[f"{scheme}://"] = make(url if "://" in url else f"http://{url}")
    if mounts:
        mounts.update((_pattern(host), None) for host in exempt)
    return mounts


def _pattern(host: str) -> str:
    """Return the pattern of a host that is exempt from proxies, of all below it if a name."""
    if "://" in host:
        return host
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return f"all://{host}" if host.lower() == "localhost" else f"all://*{host}"
    return f"all://{host}" if address.version == 4 else f"all://[{address}]"  # noqa: PLR2004
