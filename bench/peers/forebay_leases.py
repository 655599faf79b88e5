"""Forebay as a limiter: request admission with a window that is born at the cap."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.harness import told
from bench.peers.limiter import Limiter, Setting
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server_connection import ServerConnection


class ForebayLimiter:
    """A lease of a model's default domain as a slot."""

    def __init__(
        self, controller: AdaptiveRequestAdmissionController, provider_model: ProviderModelKey
    ) -> None:
        self._controller = controller
        self._resource = RequestResourceKey(provider_model=provider_model)

    async def acquire(self) -> RequestAdmissionLease:
        return await self._controller.acquire(RequestAdmissionItem(resource=self._resource))

    async def release(self, token: RequestAdmissionLease) -> None:
        await self._controller.release(token, SUCCESS)


class ForebayLeases:
    """The checked out commit."""

    name = "forebay"
    said = "Forebay"

    def version(self) -> str:
        return ""

    @asynccontextmanager
    async def open(self, setting: Setting) -> AsyncIterator[Limiter]:
        async with await ServerConnection.open(setting.url) as connection:
            controller = AdaptiveRequestAdmissionController(connection)
            cap = setting.cap
            await controller.register(setting.provider_model, "bench", cap, told(cap))
            yield ForebayLimiter(controller, setting.provider_model)
            await controller.close()
