"""Checks of the arguments of `forebay.http_client` and `forebay.transport`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from forebay.connecting import Connection
from forebay.contracts.checks import check_type, shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.events import EventSink
from forebay.contracts.settings import MemberSettings, RequestAdmissionConfig, RequestQuotas
from forebay.coordinator.event_outlet import EventOutlet
from forebay.coordinator.host_process import refuse_green_threads
from forebay.coordinator.requests.blocking import BlockingRequestAdmissionController
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server.urls import parse_url

Controller = AdaptiveRequestAdmissionController | BlockingRequestAdmissionController

_CLIENT_OPTIONS: Final = frozenset(
    {
        "auth",
        "base_url",
        "cert",
        "cookies",
        "default_encoding",
        "event_hooks",
        "follow_redirects",
        "headers",
        "http1",
        "http2",
        "max_redirects",
        "params",
        "proxy",
        "timeout",
        "trust_env",
        "verify",
    }
)
_PLACES: Final[Mapping[str, Iterable[str]]] = {
    "give it as client_options={{'{name}': ...}} to http_client": _CLIENT_OPTIONS,
    "give it as config=forebay.RequestAdmissionConfig({name}=...)": (
        RequestAdmissionConfig.model_fields
    ),
    "give it as config=forebay.RequestAdmissionConfig(quotas=forebay.RequestQuotas({name}=...))": (
        RequestQuotas.model_fields
    ),
    "give it as settings=forebay.MemberSettings({name}=...) to http_client": (
        MemberSettings.model_fields
    ),
    "use forebay.http_client, which takes it": (
        "client_options",
        "event_sinks",
        "settings",
        "sync",
    ),
}
"""Remedies for keywords in a wrong place."""


def check_keywords(
    function: Callable[..., Any], given: Iterable[str], options: Iterable[str]
) -> None:
    """Refuse keywords that a function does not take.

    Args:
        function: was called with them.
        given: those that its signature does not name.
        options: those that it takes besides its signature's.

    Raises:
        ConfigurationError: says where a keyword belongs, or which one is near.
    """
    signature = inspect.signature(function).parameters.values()
    known = [one.name for one in signature if one.kind is one.KEYWORD_ONLY] + list(options)
    for name in given:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, 1)
        place = next((place for place, names in _PLACES.items() if name in names), None)
        if place is not None:
            remedy = place.format(name=name)
        elif near:
            remedy = f"write {near[0]}, if you meant that"
        else:
            remedy = "leave it out"
        raise ConfigurationError(
            f"{function.__name__} was given {shown(name)}, expected one of"
            f" {', '.join(sorted(known))}; {remedy}."
        )


def check_requests(
    requests: object, settings: object = None, event_sinks: Sequence[EventSink] = ()
) -> None:
    """Raise unless an object is a request controller or a URL.

    Raises:
        ConfigurationError: neither a controller nor a good URL, an object that takes no events, or
            settings or sinks for a controller.
    """
    if isinstance(requests, Connection):
        raise ConfigurationError(
            "a transport was given forebay.connect(...) itself, expected what entering it gives;"
            " use `async with forebay.connect(...) as requests:`, or `with` in threads, and pass"
            " requests."
        )
    if not isinstance(requests, Controller | str):
        raise ConfigurationError(
            f"a transport was given an object of type {type(requests).__name__}, expected what"
            " forebay.connect gives, or the URL of a server; pass one."
        )
    if isinstance(requests, str):
        refuse_green_threads()  # here, as an SDK may hide what its first call raises
        parse_url(requests)
    EventOutlet(event_sinks)  # here, for the same reason
    if settings is not None:
        check_type("settings", settings, MemberSettings)
    given = {"settings": settings is not None, "event_sinks": bool(event_sinks)}
    for name in [name for name, is_given in given.items() if is_given]:
        if not isinstance(requests, str):
            raise ConfigurationError(
                f"http_client was given {name} and a {type(requests).__name__}, expected {name}"
                " with a URL alone, as a controller is connected already; pass them to"
                f" forebay.connect(url, {name}=...)."
            )


def check_sync(requests: Controller | str, *, sync: object) -> None:
    """Refuse a client that is of the other kind than its controller.

    Raises:
        ConfigurationError: it is, or ``sync`` is no bool.
    """
    check_type("sync", sync, bool)
    if isinstance(requests, str):
        return
    is_blocking = isinstance(requests, BlockingRequestAdmissionController)
    if sync != is_blocking:
        raise ConfigurationError(
            f"sync is {sync} with a {type(requests).__name__}, expected {is_blocking}, which is"
            f" what `{'with' if is_blocking else 'async with'} forebay.connect(...)` gives; leave"
            f" sync out, or connect with `{'async with' if is_blocking else 'with'}`."
        )


def check_inner(inner: object, wanted: type, library: str) -> None:
    """Refuse a transport of another kind than the one around it.

    Raises:
        ConfigurationError: it is for threads and that for an event loop, or the other way round,
            or of another library.
    """
    if inner is not None and not isinstance(inner, wanted):
        raise ConfigurationError(
            f"inner is an object of type {type(inner).__name__}, expected a"
            f" {library}.{wanted.__name__}; pass one, or set library and sync as it is."
        )
