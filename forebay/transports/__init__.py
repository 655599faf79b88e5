"""Leases below an SDK: transports and clients of ``httpx`` and ``httpx2`` (design 03, *Transport*).

One changed line makes a program share a provider's capacity with its whole fleet::

    client = AsyncOpenAI(
        http_client=forebay.http_client("redis://localhost", max_parallel_requests=64)
    )

Each HTTP attempt to a model, an SDK's own retries too, is one lease: it waits in the fair queue, is
sent, and releases the lease with its outcome when the answer's body was read, closed or dropped.

A denial (`RequestAdmissionError`: a queue's timeout, a provider/model that nobody registered) and a
server that is away (`CoordinatorError`) are raised as they are, before anything was sent. The
OpenAI SDK from 3.0 on hands them to its caller as they are. Anthropic's SDK, and OpenAI's before
3.0, take whatever is raised for a lost connection: they try again ``max_retries`` times, so wait in
the queue as often, and then raise their ``APIConnectionError`` with it as ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.events import EventSink
from forebay.contracts.identity import RequestGroupSpec, RequestResourceKey
from forebay.contracts.settings import MemberSettings, RequestAdmissionConfig
from forebay.coordinator.requests.blocking import BlockingRequestAdmissionController
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.transports.arguments import check_keywords, check_requests
from forebay.transports.clients import Factory, library_of
from forebay.transports.groups import asking_as, current_group
from forebay.transports.identity import UNNAMED_MODEL, HttpResolver, RequestView, Resolve
from forebay.transports.joined import RegisterAs
from forebay.transports.rules import ReleaseAt, Rules
from forebay.workers.providers.classification import Classifier
from forebay.workers.providers.token_estimate import TokenEstimator

if TYPE_CHECKING:
    import httpx
    import httpx2

__all__ = [
    "UNNAMED_MODEL",
    "HttpResolver",
    "RequestView",
    "Resolve",
    "TransportOptions",
    "asking_as",
    "current_group",
    "http_client",
    "transport",
]


class TransportOptions(TypedDict, total=False):
    """Options of a transport; for their meanings and defaults see `Rules`."""

    resolve: Resolve
    classifier: Classifier
    estimator: TokenEstimator
    group: RequestGroupSpec
    queue_wait_timeout_seconds: float | None
    release_at: ReleaseAt | Mapping[RequestResourceKey, ReleaseAt]


@overload
def transport(
    requests: AdaptiveRequestAdmissionController,
    *,
    inner: httpx2.AsyncBaseTransport | None = None,
    library: Literal["httpx2"] | None = None,
    max_parallel_requests: int | None = None,
    config: RequestAdmissionConfig | None = None,
    **options: Unpack[TransportOptions],
) -> httpx2.AsyncBaseTransport: ...
@overload
def transport(
    requests: BlockingRequestAdmissionController,
    *,
    inner: httpx2.BaseTransport | None = None,
    library: Literal["httpx2"] | None = None,
    max_parallel_requests: int | None = None,
    config: RequestAdmissionConfig | None = None,
    **options: Unpack[TransportOptions],
) -> httpx2.BaseTransport: ...
@overload
def transport(
    requests: AdaptiveRequestAdmissionController,
    *,
    inner: httpx.AsyncBaseTransport | None = None,
    library: Literal["httpx"] | None = None,
    max_parallel_requests: int | None = None,
    config: RequestAdmissionConfig | None = None,
    **options: Unpack[TransportOptions],
) -> httpx.AsyncBaseTransport: ...
@overload
def transport(
    requests: BlockingRequestAdmissionController,
    *,
    inner: httpx.BaseTransport | None = None,
    library: Literal["httpx"] | None = None,
    max_parallel_requests: int | None = None,
    config: RequestAdmissionConfig | None = None,
    **options: Unpack[TransportOptions],
) -> httpx.BaseTransport: ...
def transport(
    requests: AdaptiveRequestAdmissionController | BlockingRequestAdmissionController,
    *,
    inner: Any = None,
    library: str | None = None,
    max_parallel_requests: int | None = None,
    config: RequestAdmissionConfig | None = None,
    **options: Unpack[TransportOptions],
) -> Any:
    """Return a transport that sends each request under a lease.

    Args:
        requests: what ``forebay.connect`` gives; on an event loop the transport is async.
        inner: sends the requests; default the library's own, with an unbounded pool. Closed with
            the transport.
        library: ``httpx2`` or ``httpx``; default that of ``inner``, else ``httpx2``.
        max_parallel_requests: registers each provider/model with this cap before it is first asked
            for; None leaves registering to the program.
        config: tuning, clamps and quotas, for registering.
        **options: see `TransportOptions`.

    Returns:
        A transport of ``library``, for the ``transport`` argument of its client.

    Raises:
        ConfigurationError: a wrong argument, or the library is not installed.
    """
    check_keywords(transport, options, TransportOptions.__annotations__)
    check_requests(requests)
    if isinstance(requests, str):
        raise ConfigurationError(
            "forebay.transport was given a URL, expected what forebay.connect gives; pass that, or"
            " use forebay.http_client(url), which connects by itself."
        )
    factory = Factory(
        requests,
        is_blocking=isinstance(requests, BlockingRequestAdmissionController),
        library=library or ("httpx2" if inner is None else library_of(inner)),
        register_as=_register_as(max_parallel_requests, config),
        rules=Rules(**options),
    )
    return factory.transport(inner)


@overload
def http_client(
    requests: str | AdaptiveRequestAdmissionController,
    *,
    max_parallel_requests: int | None = None,
    config: RequestAdmissionConfig | None = None,
    settings: MemberSettings | None = None,
    event_sinks: Sequence[EventSink] = (),
    library: Literal["httpx2"] = "httpx2",
    sync: Literal[False] | None = None,
    inner: httpx2.AsyncBaseTransport | None = None,
    client_options: Mapping[str, Any] | None = None,
    **options: Unpack[TransportOptions],
) -> httpx2.AsyncClient: ...
@overload
def http_client(
    requests: str | BlockingRequestAdmissionController,
    *,
    max_parallel_requests: int | None = None,
    config: RequestAdmissionConfig | None = None,
    settings: MemberSettings | None = None,
    event_sinks: Sequence[EventSink] = (),
    library: Literal["httpx2"] = "httpx2",
    sync: Literal[True],
    inner: httpx2.BaseTransport | None = None,
    client_options: Mapping[str, Any] | None = None,
    **options: Unpack[TransportOptions],
) -> httpx2.Client: ...
@overload
def http_client(
    requests: str | AdaptiveRequestAdmissionController,
    *,
    max_parallel_requests: int | None = None,
    config: RequestAdmissionConfig | None = None,
    settings: MemberSettings | None = None,
    event_sinks: Sequence[EventSink] = (),
    library: Literal["httpx"],
    sync: Literal[False] | None = None,
    inner: httpx.AsyncBaseTransport | None = None,
    client_options: Mapping[str, Any] | None = None,
    **options: Unpack[TransportOptions],
) -> httpx.AsyncClient: ...
@overload
def http_client(
    requests: str | BlockingRequestAdmissionController,
    *,
    max_parallel_requests: int | None = None,
    config: RequestAdmissionConfig | None = None,
    settings: MemberSettings | None = None,
    event_sinks: Sequence[EventSink] = (),
    library: Literal["httpx"],
    sync: Literal[True],
    inner: httpx.BaseTransport | None = None,
    client_options: Mapping[str, Any] | None = None,
    **options: Unpack[TransportOptions],
) -> httpx.Client: ...
def http_client(
    requests: str | AdaptiveRequestAdmissionController | BlockingRequestAdmissionController,
    *,
    max_parallel_requests: int | None = None,
    config: RequestAdmissionConfig | None = None,
    settings: MemberSettings | None = None,
    event_sinks: Sequence[EventSink] = (),
    library: str = "httpx2",
    sync: bool | None = None,
    inner: Any = None,
    client_options: Mapping[str, Any] | None = None,
    **options: Unpack[TransportOptions],
) -> Any:
    """Return a client to hand to an SDK as its ``http_client``.

    With a URL it connects when it sends its first request, and leaves the fleet when it is closed,
    which is for its owner to do. On another event loop, once the last one has ended, it connects
    anew.

    Args:
        requests: the URL of a server, or what ``forebay.connect`` gives.
        max_parallel_requests: registers each provider/model with this cap before it is first asked
            for; must be given with a URL.
        config: tuning, clamps and quotas, for registering.
        settings: how this process takes part in the fleet; for a URL.
        event_sinks: take the events of attempts, as with ``forebay.connect``; for a URL.
        library: ``httpx2``, or ``httpx`` for older SDKs.
        sync: True for a client for threads, False for one on an event loop; default as the
            controller is, else False.
        inner: sends the requests; default the library's own, with an unbounded pool.
        client_options: for the client's class: ``timeout``, ``headers``, ...; it follows redirects
            unless told otherwise, and leaves timeouts to the SDK.
        **options: see `TransportOptions`.

    Returns:
        A client of ``library``, async unless ``sync``.

    Raises:
        ConfigurationError: a wrong argument, or the library is not installed.

    Example:
        >>> import httpx2
        >>> provider = httpx2.MockTransport(lambda request: httpx2.Response(200, json={}))
        >>> async def main() -> None:
        ...     async with forebay.http_client(
        ...         url, max_parallel_requests=8, inner=provider
        ...     ) as client:
        ...         reply = await client.post(
        ...             "https://api.openai.com/v1/chat/completions", json={"model": "gpt-5"}
        ...         )
        ...         print(reply.status_code)
        >>> asyncio.run(main())
        200
    """
    check_keywords(http_client, options, TransportOptions.__annotations__)
    check_requests(requests, settings, event_sinks)
    if isinstance(requests, str) and max_parallel_requests is None:
        raise ConfigurationError(
            "http_client was given a URL and no max_parallel_requests, with which it registers each"
            " provider/model; name the most calls that the provider takes at once."
        )
    if sync is None:
        sync = isinstance(requests, BlockingRequestAdmissionController)
    factory = Factory(
        requests,
        is_blocking=sync,
        library=library,
        register_as=_register_as(max_parallel_requests, config),
        rules=Rules(**options),
        settings=settings,
        event_sinks=event_sinks,
    )
    return factory.client(inner, {} if client_options is None else client_options)


def _register_as(
    max_parallel_requests: int | None, config: RequestAdmissionConfig | None
) -> RegisterAs | None:
    if max_parallel_requests is None:
        if config is not None:
            raise ConfigurationError(
                "a transport was given a config and no max_parallel_requests, so it would register"
                " nothing; give both, or neither."
            )
        return None
    return RegisterAs(
        max_parallel_requests=max_parallel_requests, config=config or RequestAdmissionConfig()
    )
