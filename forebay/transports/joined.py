"""The controller of a transport, its connection, and its registrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from forebay.connecting import Connection
from forebay.contracts.checks import check_cap, check_type
from forebay.contracts.events import EventSink
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.settings import LARGEST_CAP, MemberSettings, RequestAdmissionConfig
from forebay.transports.waits import OPEN_BODIES, LongWaits

LockT = TypeVar("LockT")
ControllerT = TypeVar("ControllerT")

ALIAS: Final = "http"
CLOSED: Final = "this client was closed, expected an open one; make another."


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAs:
    """The settings with which a transport registers a provider/model before its first acquire.

    Attributes:
        max_parallel_requests: the cap of each.
        config: tuning, clamps, quotas of each.

    Raises:
        ConfigurationError: a cap below 1 or above 10^9, or another config.
    """

    max_parallel_requests: int
    config: RequestAdmissionConfig

    def __post_init__(self) -> None:
        check_cap("max_parallel_requests of a transport", self.max_parallel_requests, LARGEST_CAP)
        check_type("config of a transport", self.config, RequestAdmissionConfig)


@dataclass(slots=True)
class Joined(Generic[LockT, ControllerT]):
    """The controller and registrations of one event loop or process.

    Attributes:
        lock: held while it connects, registers or leaves.
        controller: None before it has connected.
        connection: made for the controller, to be left; None where that was given.
        registered: what the controller was told of.
        long_waits: the calls that wait for their leases.
    """

    lock: LockT
    long_waits: LongWaits
    controller: ControllerT | None = None
    connection: Connection | None = None
    registered: set[ProviderModelKey] = field(default_factory=set)

    def ready(
        self, provider_model: ProviderModelKey, register_as: RegisterAs | None
    ) -> ControllerT | None:
        """Return the controller if a provider/model needs no registering any more."""
        is_registered = register_as is None or provider_model in self.registered
        return self.controller if is_registered else None

    def forget(self) -> Connection | None:
        """Forget the controller and registrations; return the connection to be closed."""
        connection, self.connection = self.connection, None
        self.controller, self.registered = None, set()
        return connection


@dataclass(eq=False)
class Admission(Generic[ControllerT]):
    """The controller of a transport, or the URL that it connects to.

    Attributes:
        requests: a controller, or the URL of a server to connect to when first needed.
        register_as: how each provider/model is registered when first asked for; None leaves
            registering to the program.
        settings: how the process takes part in the fleet; for a URL.
        event_sinks: take the events of attempts; for a URL.
        on_long_wait: told, about once a second, that a call waits for its lease since long.
        is_closed: whether it joins no more.
    """

    requests: ControllerT | str
    register_as: RegisterAs | None
    settings: MemberSettings | None = None
    event_sinks: Sequence[EventSink] = ()
    on_long_wait: Callable[[], None] = field(default=OPEN_BODIES.free_dropped, kw_only=True)
    is_closed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Begin without a controller."""
        raise NotImplementedError
