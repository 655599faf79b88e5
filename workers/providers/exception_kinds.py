"""Outcomes of exceptions without an answer, by the name of the exception's class."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from forebay.contracts.outcomes import RequestOutcomeKind

_HTTP_PACKAGES: Final = frozenset(
    {"aiohttp", "anthropic", "botocore", "groq", "httpx", "httpx2", "openai", "requests"}
    | {"together", "urllib"}
)
_KIND_BY_CLASS: Final = {
    "PoolTimeout": RequestOutcomeKind.LOCAL_TIMEOUT,
    "ConnectTimeout": RequestOutcomeKind.PROVIDER_FAILURE,
    "TimeoutException": RequestOutcomeKind.PROVIDER_TIMEOUT,
    "NetworkError": RequestOutcomeKind.PROVIDER_FAILURE,
    "ProxyError": RequestOutcomeKind.PROVIDER_FAILURE,
    "RemoteProtocolError": RequestOutcomeKind.PROVIDER_FAILURE,
    "APITimeoutError": RequestOutcomeKind.PROVIDER_TIMEOUT,
    "APIConnectionError": RequestOutcomeKind.PROVIDER_FAILURE,
    "Timeout": RequestOutcomeKind.PROVIDER_TIMEOUT,  # requests
    "ConnectionError": RequestOutcomeKind.PROVIDER_FAILURE,
    "ChunkedEncodingError": RequestOutcomeKind.PROVIDER_FAILURE,
    "ConnectionTimeoutError": RequestOutcomeKind.PROVIDER_FAILURE,  # aiohttp
    "ServerTimeoutError": RequestOutcomeKind.PROVIDER_TIMEOUT,
    "ClientConnectionError": RequestOutcomeKind.PROVIDER_FAILURE,
    "ClientPayloadError": RequestOutcomeKind.PROVIDER_FAILURE,
    "URLError": RequestOutcomeKind.PROVIDER_FAILURE,
    "ReadTimeoutError": RequestOutcomeKind.PROVIDER_TIMEOUT,  # botocore
    "ConnectionClosedError": RequestOutcomeKind.PROVIDER_FAILURE,
    "ResponseStreamingError": RequestOutcomeKind.PROVIDER_FAILURE,
}


def kind_by_class(error: BaseException) -> RequestOutcomeKind:
    """Return the kind of an exception of an HTTP library, an SDK or the standard library."""
    for cls in type(error).__mro__:
        if cls.__module__.partition(".")[0] in _HTTP_PACKAGES and cls.__name__ in _KIND_BY_CLASS:
            return _KIND_BY_CLASS[cls.__name__]
    if isinstance(error, TimeoutError):
        return RequestOutcomeKind.PROVIDER_TIMEOUT
    if isinstance(error, ConnectionError | socket.gaierror | ssl.SSLError):
        return RequestOutcomeKind.PROVIDER_FAILURE
    return RequestOutcomeKind.UNEXPECTED_EXCEPTION
