"""Finds the window of an HTTP request by host, path and JSON body.

Rules: design 03, *Transport*.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from forebay.contracts.checks import check_type, shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestDomain, RequestResourceKey
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.workers.providers.registry import (
    GENERIC,
    Call,
    PreparedProfile,
    host_name,
    profile_named,
    profile_of_host,
)

log = Logger("forebay.transports")

UNNAMED_MODEL: Final = "unnamed"
"""Model id of a call that names no model in a readable body: an upload, a list of the models."""

LIBRARIES: Final = ("httpx2", "httpx")

_MOST_WARNED: Final = 1_000
_MOST_KEPT: Final = 1_024
_HARMLESS: Final = frozenset({"HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestView:
    """The parts of a request that are read before it is sent.

    Attributes:
        method: ``GET``, ``POST``, ...
        host: with the port where the URL names one.
        path: as it stands in the URL, without the query.
        body: the JSON object that is sent; None where it is none, or streams and cannot be read
            ahead. Kept out of the repr.
    """

    method: str
    host: str
    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)


Resolve = Callable[[RequestView], RequestResourceKey | None]
"""A function that returns a request's window; None sends the request without a lease."""


def view_of(request: Any) -> RequestView:
    """Return the view of a request of httpx or httpx2; a streamed body is not read."""
    url = request.url
    return RequestView(
        method=request.method,
        host=url.host if url.port is None else f"{url.host}:{url.port}",
        path=url.path,
        body=_body_of(request),
    )


class HttpResolver:
    """Reads the window of a request as its provider's API is laid out (docs/providers.md).

    On the host of a known provider, and on one that ``providers`` names, every call has a window:
    that of its model, or that of ``unnamed`` on an unknown path, with one warning for each path. On
    any other host, calls to the paths of a known API have a window; other calls pass without a
    lease, with one warning for each host. Calls that run no model (files, batches, threads) need
    no lease.

    Args:
        providers: by host (``gateway.example:8080``, as in the URL), the provider's name; goes
            before the profiles' own hosts.

    Raises:
        ConfigurationError: ``providers`` is no mapping of texts.

    Example:
        >>> view = forebay.RequestView(
        ...     method="POST",
        ...     host="api.openai.com",
        ...     path="/v1/chat/completions",
        ...     body={"model": "gpt-5"},
        ... )
        >>> str(forebay.HttpResolver()(view))
        'openai/gpt-5/chat'
    """

    def __init__(self, providers: Mapping[str, str] | None = None) -> None:
        check_type("providers of an HttpResolver", providers or {}, Mapping)
        for host, name in (providers or {}).items():
            if not isinstance(host, str) or not isinstance(name, str) or not name.strip():
                raise ConfigurationError(
                    f"providers maps {shown(host)} to {shown(name)}, expected a host such as"
                    " 'gateway.example:8080' and the provider's name; correct it."
                )
        self._providers = {host_name(host): name for host, name in (providers or {}).items()}
        self._resource_of = lru_cache(_MOST_KEPT)(RequestResourceResolver().resolve)
        self._warned: set[str] = set()

    def __call__(self, view: RequestView) -> RequestResourceKey | None:
        """Return the window of a request, None if it needs no lease.

        Raises:
            ConfigurationError: the body names a model that no key can hold.
        """
        host = host_name(view.host)
        named = self._providers.get(host)
        profile = profile_of_host(host) if named is None else profile_named(named)
        is_known = named is not None or profile is not None
        profile = GENERIC if profile is None else profile
        call = profile.call_of(view.method, view.path)
        if call is None and profile is not GENERIC:  # an API of another provider on its host
            call = GENERIC.call_of(view.method, view.path)
        if call is None:
            call = self._unknown(view, is_known=is_known)
        if call is None or call.domain is None:
            return None
        if named is None:
            named = host if profile is GENERIC or profile.named_by_host else profile.name
        model = _model_of(view, call, profile)
        return self._resource_of(named, model, call.domain)

    def _unknown(self, view: RequestView, *, is_known: bool) -> Call | None:
        """Warn once of an unknown path or host; return its call, None if that needs no lease."""
        if view.method in _HARMLESS:
            return None
        place = f"{view.host}{view.path}" if is_known else view.host
        if place not in self._warned and len(self._warned) < _MOST_WARNED:
            self._warned.add(place)
            if is_known:
                log.warning(
                    "path_not_known",
                    host=view.host,
                    path=view.path,
                    reason=f"its calls share the window of the model {UNNAMED_MODEL!r}",
                    remedy="name its window by resolve=, or report the path",
                )
            else:
                log.warning(
                    "host_not_known",
                    host=view.host,
                    path=view.path,
                    reason="no provider is known there, so this call and the others to such paths"
                    " go out without a lease",
                    remedy=f"resolve=forebay.HttpResolver({{{view.host!r}: 'name'}}) leases them",
                )
        return Call(RequestDomain.CHAT, None) if is_known else None


def profile_for(view: RequestView, resource: RequestResourceKey) -> PreparedProfile:
    """Return the profile of a request's provider: by its host, else by its name."""
    profile = profile_of_host(view.host) or profile_named(resource.provider_model.provider_name)
    return GENERIC if profile is None else profile


def _model_of(view: RequestView, call: Call, profile: PreparedProfile) -> str:
    """Return the model that the path names, as an Azure deployment's does; else the body's."""
    if call.model is not None:
        return call.model
    for field_name in profile.body.models if view.body is not None else ():
        model = (view.body or {}).get(field_name)
        if isinstance(model, str) and model.strip():
            return model
    return UNNAMED_MODEL


def _body_of(request: Any) -> Mapping[str, Any] | None:
    kind = request.headers.get("content-type", "")
    if "multipart/" in kind:
        return _form_fields(request)
    return _json_body(request) if "json" in kind else None


def _form_fields(request: Any) -> Mapping[str, Any] | None:
    """Return the texts of a form; its files are not read."""
    fields = getattr(request.stream, "fields", None)
    if not isinstance(fields, list):
        return None
    pairs = ((getattr(one, "name", None), getattr(one, "value", None)) for one in fields)
    return {name: value for name, value in pairs if isinstance(name, str) and type(value) is str}


def _json_body(request: Any) -> Mapping[str, Any] | None:
    try:
        body = json.loads(_sent_bytes(request))
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _sent_bytes(request: Any) -> bytes:
    """Return the body of a request, b"" if it streams and cannot be read twice."""
    try:
        content: bytes = request.content
    except RuntimeError:  # not read: it streams, or a redirect hands on the first request's stream
        stream = request.stream
        in_memory = tuple(getattr(sys.modules.get(name), "ByteStream", ()) for name in LIBRARIES)
        return b"".join(stream) if isinstance(stream, in_memory) else b""
    return content
