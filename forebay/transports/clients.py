"""Makes transports and clients of ``httpx`` or ``httpx2``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from functools import cache, partial
from types import ModuleType
from typing import Any, Final

from forebay.contracts.checks import check_type, shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.events import EventSink
from forebay.contracts.extras import how_to_install
from forebay.contracts.settings import MemberSettings
from forebay.transports.admission import AsyncAdmission
from forebay.transports.arguments import Controller, check_inner, check_sync
from forebay.transports.blocking_admission import BlockingAdmission
from forebay.transports.core import AsyncAdmitted, BlockingAdmitted, ItemBuilder
from forebay.transports.identity import LIBRARIES
from forebay.transports.joined import RegisterAs
from forebay.transports.lanes import Lanes, ManyLanes, OneLane
from forebay.transports.proxies import proxy_mounts
from forebay.transports.rules import Rules
from forebay.transports.streams import AsyncBody, BlockingBody

_OWN_OPTIONS: Final = frozenset({"transport", "mounts", "limits"})
_TRUST_OPTIONS: Final = frozenset({"verify", "cert", "trust_env"})
_TRANSPORT_OPTIONS: Final = frozenset({"verify", "cert", "http1", "http2", "proxy"})


def loaded(library: str) -> ModuleType:
    """Import an HTTP library.

    Raises:
        ConfigurationError: another library, or it is not installed.
    """
    if library not in LIBRARIES:
        raise ConfigurationError(
            f"library is {shown(library)}, expected one of {', '.join(LIBRARIES)}; name the one"
            " that your SDK is built on."
        )
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ConfigurationError(
            f"a transport for {library} expects it to be installed, and it is not; run"
            f" {how_to_install(library)}, or choose another library."
        ) from error


@cache
def transport_class(library: ModuleType, *, is_blocking: bool) -> Any:
    """Return the class of transports for a library, made of its own base classes."""
    if is_blocking:
        stream = type("BlockingStream", (BlockingBody, library.SyncByteStream), {})
        bases: tuple[type, ...] = (BlockingAdmitted, library.BaseTransport)
        return type("BlockingTransport", bases, {"body_class": stream})
    stream = type("AsyncStream", (AsyncBody, library.AsyncByteStream), {})
    bases = (AsyncAdmitted, library.AsyncBaseTransport)
    return type("AsyncTransport", bases, {"body_class": stream})


def library_of(inner: object) -> str:
    """Return the library that a transport belongs to.

    Raises:
        ConfigurationError: to none that is known.
    """
    # Not by the name of its class's module: openai's SDK renames those that it exports as its own.
    for name in LIBRARIES:
        library = sys.modules.get(name)
        if library is not None and isinstance(
            inner, library.BaseTransport | library.AsyncBaseTransport
        ):
            return name
    raise ConfigurationError(
        f"inner is an object of type {type(inner).__name__}, expected a transport of"
        f" {' or '.join(LIBRARIES)}; pass one, or leave it out."
    )


class Factory:
    """Makes transports that share one admission, and clients with them.

    Args:
        requests: a controller, or the URL of a server.
        is_blocking: whether they are for threads.
        library: whose they are.
        register_as: how each provider/model is registered; None leaves that to the program.
        rules: how requests are treated.
        settings: how the process takes part in the fleet; for a URL.
        event_sinks: take the events of attempts; for a URL.

    Raises:
        ConfigurationError: the library is not installed, or the controller is of the other kind.
    """

    def __init__(
        self,
        requests: Controller | str,
        *,
        is_blocking: bool,
        library: str,
        register_as: RegisterAs | None,
        rules: Rules,
        settings: MemberSettings | None = None,
        event_sinks: Sequence[EventSink] = (),
    ) -> None:
        check_sync(requests, sync=is_blocking)
        self._is_blocking = is_blocking
        self._library = loaded(library)
        self._items = ItemBuilder(rules)
        self._admission: AsyncAdmission | BlockingAdmission
        make: Any = BlockingAdmission if is_blocking else AsyncAdmission
        self._admission = make(requests, register_as, settings, event_sinks)

    def transport(self, inner: Any = None, **options: Any) -> Any:
        """Return a transport around ``inner``, default the library's own with these options.

        Raises:
            ConfigurationError: ``inner`` is of another kind.
        """
        library = self._library
        base = library.BaseTransport if self._is_blocking else library.AsyncBaseTransport
        check_inner(inner, base, library.__name__)
        lanes = self._own_lanes(**options) if inner is None else OneLane(inner)
        cls = transport_class(library, is_blocking=self._is_blocking)
        return cls(lanes, self._admission, self._items)

    def _own_lanes(self, **options: Any) -> Lanes:
        library = self._library
        make = library.HTTPTransport if self._is_blocking else library.AsyncHTTPTransport
        # No transport pool size is a capacity control (design 01, *What it is not*).
        options["limits"] = library.Limits(max_connections=None, max_keepalive_connections=None)
        if options.get("http2"):  # one connection carries many requests at the same time
            remake = partial(make, **options)
            return OneLane(remake(), remake)
        # Reading the certificates takes longer than most requests: once for all lanes.
        trust = {name: options.pop(name) for name in _TRUST_OPTIONS if name in options}
        options["verify"] = library.create_ssl_context(**trust)
        return ManyLanes(partial(make, **options))

    def client(self, inner: Any, options: Mapping[str, Any]) -> Any:
        """Return a client; without an ``inner``, through the proxies that the environment names.

        Raises:
            ConfigurationError: options that the client does not know, or that this sets itself.
        """
        check_type("client_options", options, Mapping)
        taken = _OWN_OPTIONS & options.keys()
        if inner is not None:
            taken |= _TRANSPORT_OPTIONS & options.keys()
        if taken:
            raise ConfigurationError(
                f"client_options names {', '.join(sorted(taken))}, which http_client or inner sets;"
                " pass a transport as inner, or make the client with forebay.transport(...)."
            )
        # A client that is given a transport does with neither these nor the environment's proxies
        # what it does for its own.
        for_transport = {name: options[name] for name in _TRANSPORT_OPTIONS & options.keys()}
        for_client = {name: options[name] for name in options.keys() - _TRANSPORT_OPTIONS}
        trusts_env = options.get("trust_env", True)
        mounts = None
        if inner is None and trusts_env and "proxy" not in options:
            mounts = proxy_mounts(lambda url: self.transport(**for_transport, proxy=url))
        if not trusts_env:
            for_transport["trust_env"] = False
        make = self._library.Client if self._is_blocking else self._library.AsyncClient
        for_client.setdefault("follow_redirects", True)  # as the SDKs' own clients have it
        try:
            transport = self.transport(inner, **for_transport)
            return make(transport=transport, mounts=mounts, **for_client)
        except TypeError as error:
            raise ConfigurationError(
                f"client_options do not suit {self._library.__name__}.{make.__name__}: {error};"
                " correct them."
            ) from error
