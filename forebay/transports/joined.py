"""What a transport has joined: a controller, its connection, and what was registered there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from forebay.connecting import Connection
from forebay.contracts.checks import check_cap, check_type
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.settings import LARGEST_CAP, RequestAdmissionConfig
from forebay.transports.waits import LongWaits

LockT = TypeVar("LockT")
ControllerT = TypeVar("ControllerT")

ALIAS: Final = "http"
CLOSED: Final = "this client was closed, expected an open one; make another."


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAs:
    """What a transport registers each provider/model with before it first asks for it.

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
    """What an admission has on one event loop, or in one process.

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
        """Begin anew; return the connection that is to be left."""
        connection, self.connection = self.connection, None
        self.controller, self.registered = None, set()
        return connection
