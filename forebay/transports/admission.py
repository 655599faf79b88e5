"""The controllers that transports ask: given ones, or connections that they make themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from contracts.errors import ConfigurationError
from contracts.identity import ProviderModelKey, RequestGroupSpec, check_cap, check_type
from contracts.settings import LARGEST_CAP, MemberSettings, RequestAdmissionConfig
from coordinator.requests.blocking import BlockingRequestAdmissionController
from coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.connecting import Connection, connect

Controller = AdaptiveRequestAdmissionController | BlockingRequestAdmissionController

current_group: ContextVar[RequestGroupSpec | None] = ContextVar(
    "forebay_request_group", default=None
)
"""Who asks, for requests made in this task and its children; goes before a transport's group."""


@contextlib.contextmanager
def asking_as(group: RequestGroupSpec) -> Iterator[None]:
    """Name who asks, for the requests made within the block: a tenant, a run."""
    check_type("group", group, RequestGroupSpec)
    token = current_group.set(group)
    try:
        yield
    finally:
        current_group.reset(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a transport registers each provider/model with before it first asks for it.

    Attributes:
        max_parallel_requests: the cap of each.
        config: tuning, clamps, quotas of each.
        alias: under which name.

    Raises:
        ConfigurationError: a cap below 1 or above 10^9, or another config.
    """

    max_parallel_requests: int
    config: RequestAdmissionConfig = field(default_factory=RequestAdmissionConfig)
    alias: str = "http"

    def __post_init__(self) -> None:
        check_cap("max_parallel_requests of a transport", self.max_parallel_requests, LARGEST_CAP)
        check_type("config of a transport", self.config, RequestAdmissionConfig)


class AsyncAdmission:
    """Gives the controller of the running event loop.

    Args:
        requests: a controller, or the URL of a server to connect to when first needed, anew on
            each new event loop.
        registration: how each provider/model is registered when first asked for; None leaves
            registering to the program.
        settings: how the process takes part in the fleet; for a URL.
    """

    def __init__(
        self,
        requests: AdaptiveRequestAdmissionController | str,
        registration: Registration | None,
        settings: MemberSettings | None = None,
    ) -> None:
        self._requests = requests
        self._registration = registration
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None
        self._controller: AdaptiveRequestAdmissionController | None = None
        self._registered: set[ProviderModelKey] = set()

    async def ready(self, provider_model: ProviderModelKey) -> AdaptiveRequestAdmissionController:
        """Return a controller that may be asked for a provider/model.

        Raises:
            ConfigurationError, CoordinatorError: connecting or registering failed.
        """
        loop = asyncio.get_running_loop()
        controller = self._controller
        if (
            controller is not None
            and loop is self._loop
            and (self._registration is None or provider_model in self._registered)
        ):
            return controller
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
            self._controller, self._registered = None, set()
            await self._leave()
        async with self._lock:
            if self._controller is None:
                self._controller = await self._connected()
            controller = self._controller
            if self._registration is not None and provider_model not in self._registered:
                chosen = self._registration
                await controller.register(
                    provider_model, chosen.alias, chosen.max_parallel_requests, chosen.config
                )
                self._registered.add(provider_model)
        return controller

    async def aclose(self) -> None:
        """Leave the fleet, if this made the connection."""
        self._controller, self._loop = None, None
        await self._leave()

    async def _connected(self) -> AdaptiveRequestAdmissionController:
        if not isinstance(self._requests, str):
            return self._requests
        connection = connect(self._requests, self._settings)
        controller = await connection.__aenter__()
        self._connection = connection
        return controller

    async def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.__aexit__(None, None, None)


class BlockingAdmission:
    """Gives the controller of this process to threads; for the rest see `AsyncAdmission`."""

    def __init__(
        self,
        requests: BlockingRequestAdmissionController | str,
        registration: Registration | None,
        settings: MemberSettings | None = None,
    ) -> None:
        self._requests = requests
        self._registration = registration
        self._settings = settings
        self._process_id = 0
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._controller: BlockingRequestAdmissionController | None = None
        self._registered: set[ProviderModelKey] = set()

    def ready(self, provider_model: ProviderModelKey) -> BlockingRequestAdmissionController:
        """Return a controller that may be asked for a provider/model: `AsyncAdmission.ready`."""
        if os.getpid() != self._process_id:  # the first time, and in a forked child
            self._process_id, self._lock = os.getpid(), threading.Lock()
            self._connection, self._controller, self._registered = None, None, set()
        with self._lock:
            if self._controller is None:
                self._controller = self._connected()
            controller = self._controller
            if self._registration is not None and provider_model not in self._registered:
                chosen = self._registration
                controller.register(
                    provider_model, chosen.alias, chosen.max_parallel_requests, chosen.config
                )
                self._registered.add(provider_model)
        return controller

    def close(self) -> None:
        """Leave the fleet, if this made the connection."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._controller, self._process_id = None, 0
        if connection is not None:
            connection.__exit__(None, None, None)

    def _connected(self) -> BlockingRequestAdmissionController:
        if not isinstance(self._requests, str):
            return self._requests
        connection = connect(self._requests, self._settings)
        controller = connection.__enter__()
        self._connection = connection
        return controller


def check_requests(requests: object) -> None:
    """Refuse what no transport can ask.

    Raises:
        ConfigurationError: neither a controller nor a URL.
    """
    if not isinstance(requests, Controller | str):
        raise ConfigurationError(
            f"a transport was given an object of type {type(requests).__name__}, expected what"
            " forebay.connect gives, or the URL of a server; pass one."
        )
