"""Which window an HTTP request belongs to, read from its host, path and JSON body (spec 03)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from forebay.contracts.checks import check_type, shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestDomain, RequestResourceKey
from forebay.coordinator.requests.resolver import RequestResourceResolver

UNNAMED_MODEL: Final = "unnamed"
"""Model id of a call that names no model in a readable body: an upload, a list of the models."""

LIBRARIES: Final = ("httpx2", "httpx")

_PROVIDERS: Final = {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}
_DOMAIN_BY_ENDING: Final = {
    "/chat/completions": RequestDomain.CHAT,
    "/completions": RequestDomain.CHAT,
    "/messages": RequestDomain.CHAT,
    "/responses": RequestDomain.CHAT,
    "/embeddings": RequestDomain.EMBEDDING,
}
_HEALTH_ENDINGS: Final = ("/models", "/health", "/healthz")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestView:
    """What is looked at of a request before it is sent.

    Attributes:
        method: ``GET``, ``POST``, ...
        host: in lower case, with the port where the URL names one.
        path: as it stands in the URL, without the query.
        body: the JSON object that is sent; None where it is none, or streams and cannot be read
            ahead. Kept out of the repr.
    """

    method: str
    host: str
    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)


Resolve = Callable[[RequestView], RequestResourceKey | None]
"""Names the window that a request needs a lease of; None sends it without one."""


def view_of(request: Any) -> RequestView:
    """Look at a request of httpx or httpx2; what streams is not read."""
    url = request.url
    return RequestView(
        method=request.method,
        host=url.host if url.port is None else f"{url.host}:{url.port}",
        path=url.path,
        body=_json_body(request),
    )


class HttpResolver:
    """Reads the window of a request as OpenAI's, Anthropic's and compatible APIs are laid out.

    Calls of models are POSTs to ``/chat/completions``, ``/completions``, ``/messages``,
    ``/responses``, ``/embeddings`` and ``/images/...``; a GET of ``/models`` or ``/health`` is a
    health check. Everything else (files, threads, batches) needs no lease.

    Args:
        providers: by host (``gateway.example:8080``, as in the URL), the provider's name; goes
            before the guess, which is ``openai`` or ``anthropic`` for their own hosts and else the
            host itself.

    Raises:
        ConfigurationError: ``providers`` is no mapping of texts.
    """

    def __init__(self, providers: Mapping[str, str] | None = None) -> None:
        check_type("providers of an HttpResolver", providers or {}, Mapping)
        for host, name in (providers or {}).items():
            if not isinstance(host, str) or not isinstance(name, str) or not name.strip():
                raise ConfigurationError(
                    f"providers maps {shown(host)} to {shown(name)}, expected a host such as"
                    " 'gateway.example:8080' and the provider's name; correct it."
                )
        mapped = {host.lower(): name for host, name in (providers or {}).items()}
        self._providers = {**_PROVIDERS, **mapped}
        self._resources = RequestResourceResolver()

    def __call__(self, view: RequestView) -> RequestResourceKey | None:
        """Return the window of a request, None if it needs no lease.

        Raises:
            ConfigurationError: the body names a model that no key can hold.
        """
        domain = _domain_of(view)
        if domain is None:
            return None
        provider = self._providers.get(view.host, view.host)
        return self._resources.resolve(provider, _model_of(view, domain), domain)


def _domain_of(view: RequestView) -> RequestDomain | None:
    path = view.path.rstrip("/")
    if view.method == "POST":
        if "/images/" in path:
            return RequestDomain.IMAGE
        if "/threads/" in path:  # messages there are notes, answered by nobody
            return None
        return _DOMAIN_BY_ENDING.get(f"/{path.rpartition('/')[2]}")
    if view.method == "GET" and path.endswith(_HEALTH_ENDINGS):
        return RequestDomain.HEALTHCHECK
    return None


def _model_of(view: RequestView, domain: RequestDomain) -> str:
    model = view.body.get("model") if view.body is not None else None
    if isinstance(model, str) and model.strip():
        return model
    # Azure names a deployment in the path; older API versions have no model in the body.
    before, found, after = view.path.partition("/deployments/")
    if before and found and domain is not RequestDomain.HEALTHCHECK:
        return after.partition("/")[0] or UNNAMED_MODEL
    return UNNAMED_MODEL


def _json_body(request: Any) -> Mapping[str, Any] | None:
    if "json" not in request.headers.get("content-type", ""):
        return None
    try:
        body = json.loads(_sent_bytes(request))
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _sent_bytes(request: Any) -> bytes:
    """Return what a request sends, b"" if that streams and could not be read twice."""
    try:
        content: bytes = request.content
    except RuntimeError:  # not read: it streams, or a redirect hands on the first request's stream
        stream = request.stream
        in_memory = tuple(getattr(sys.modules.get(name), "ByteStream", ()) for name in LIBRARIES)
        return b"".join(stream) if isinstance(stream, in_memory) else b""
    return content
