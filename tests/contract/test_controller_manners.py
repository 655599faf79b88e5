"""What the controller does besides granting: nothing left behind, one warning, typed errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.contracts.errors import AttemptIdUsed, ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.outcomes import (
    SUCCESS,
    ReleaseReason,
    RequestOutcomeKind,
    RequestReleaseOutcome,
)
from forebay.contracts.requests import (
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.contracts.settings import MemberSettings, RequestAdmissionConfig
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server_connection import ServerConnection

MODEL = ProviderModelKey(provider_name="p", model_id="m")
CHAT = RequestResourceKey(provider_model=MODEL)


def item(**fields: Any) -> RequestAdmissionItem:
    return RequestAdmissionItem(resource=CHAT, **fields)


def made_up_lease() -> RequestAdmissionLease:
    asked = item()
    return RequestAdmissionLease(
        lease_id=asked.attempt_id,
        item=asked,
        acquired_at=0.0,
        limit_at_admission=1,
        cuts_at_admission=0,
        effective_max=1,
        generation="none",
        member_id="nobody",
    )


async def test_asking_for_what_nobody_registered_leaves_no_key_behind(redis_url: str) -> None:
    async with await ServerConnection.open(redis_url) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        with pytest.raises(RequestAdmissionError) as refused:
            await controller.acquire(item())
        tried = await controller.try_acquire(item())
        released = await controller.release(made_up_lease(), SUCCESS)
        await controller.close()
        assert refused.value.denied.reason is RequestDenialReason.HARD_POLICY_DENIAL
        assert not isinstance(tried, RequestAdmissionLease)
        assert released.reason is ReleaseReason.UNKNOWN_LEASE
        assert await connection.client.keys("*") == []


@pytest.mark.parametrize("what", ["deadline", "cooldown"])
async def test_time_alone_ends_a_lone_wait_without_a_recheck(redis_url: str, what: str) -> None:
    settings = MemberSettings(ttl_seconds=3600.0, recheck_seconds=60.0, call_timeout_seconds=60.0)
    async with (
        await ServerConnection.open(redis_url, settings) as connection,
        asyncio.timeout(20.0),
    ):
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(MODEL, "mine", 1)
        held = await controller.acquire(item())
        if what == "deadline":
            with pytest.raises(RequestAdmissionError) as denied:
                await controller.acquire(item(queue_wait_timeout_seconds=0.05))
            assert denied.value.denied.reason is RequestDenialReason.QUEUE_TIMEOUT
        else:
            hint = RequestReleaseOutcome(
                kind=RequestOutcomeKind.RATE_LIMITED, retry_after_seconds=0.05
            )
            await controller.release(held, hint)
            await controller.acquire(item())
        await controller.close()


async def test_a_resource_that_another_process_registered_needs_no_registration_here(
    redis_url: str,
) -> None:
    async with (
        await ServerConnection.open(redis_url) as theirs,
        await ServerConnection.open(redis_url) as ours,
    ):
        registered = AdaptiveRequestAdmissionController(theirs)
        await registered.register(MODEL, "theirs", 1)
        controller = AdaptiveRequestAdmissionController(ours)
        lease = await controller.acquire(item())
        assert (await registered.release(lease, SUCCESS)).reason is ReleaseReason.STALE_LEASE
        assert (await controller.release(lease, SUCCESS)).released
        assert (await controller.pressure.audit(MODEL)).ok
        await controller.close()
        await registered.close()


async def test_a_task_that_holds_a_lease_and_asks_for_another_is_warned_once(
    redis_url: str,
) -> None:
    async with await ServerConnection.open(redis_url) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(MODEL, "main", 4)

        async def one_after_another() -> None:
            for _ in range(2):
                await controller.release(await controller.acquire(item()), SUCCESS)

        async def nested() -> None:
            outer = await controller.acquire(item())
            inner = await controller.acquire(item())
            for lease in (inner, outer):
                await controller.release(lease, SUCCESS)

        with capture_logs() as logs:
            await asyncio.gather(*(one_after_another() for _ in range(4)))
            assert [entry["event"] for entry in logs] == []
            await nested()
            await nested()
        await controller.close()
        assert [entry["event"] for entry in logs] == ["request_lease_nested"]


async def test_the_default_wait_is_that_of_a_registration_that_succeeded(redis_url: str) -> None:
    async with await ServerConnection.open(redis_url) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        config = RequestAdmissionConfig(default_queue_wait_timeout_seconds=0.05)
        await controller.register(MODEL, "main", 1, config)
        lease = await controller.acquire(item())
        with pytest.raises(RequestAdmissionError, match="default wait"):
            await controller.acquire(item())
        await controller.release(lease, SUCCESS)
        await controller.close()


async def test_what_is_no_item_lease_outcome_or_config_is_a_typed_error(redis_url: str) -> None:
    async with await ServerConnection.open(redis_url) as connection:
        controller: Any = AdaptiveRequestAdmissionController(connection)
        lease = made_up_lease()
        for call in (
            lambda: controller.acquire("x"),
            lambda: controller.acquire(None),
            lambda: controller.try_acquire("x"),
            lambda: controller.register("p/m", "a", 1),
            lambda: controller.register(MODEL, "a", 10**5000),
            lambda: controller.register(MODEL, "a", 1, {"tuning": {}}),
            lambda: controller.pressure.snapshot("x"),
            lambda: controller.pressure.global_snapshot("x"),
            lambda: controller.release("x", SUCCESS),
            lambda: controller.release(lease, "success"),
        ):
            with pytest.raises(ConfigurationError, match="expected"):
                await call()
        await controller.close()
        assert await connection.client.keys("*") == []


async def test_an_attempt_id_that_was_used_before_is_refused_with_the_remedy(
    redis_url: str,
) -> None:
    async with await ServerConnection.open(redis_url) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(MODEL, "main", 1)
        asked = item(attempt_id="again {1}")
        await controller.release(await controller.acquire(asked), SUCCESS)
        with pytest.raises(AttemptIdUsed, match=r"again \{1\}.*make one per attempt") as refused:
            await controller.acquire(asked)
        assert refused.value.attempt_id == asked.attempt_id
        await controller.close()
