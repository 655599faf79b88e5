"""Fixtures of the executor's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from forebay.workers.executor import ModelRequestExecutor
from tests.support_executor import FakeAdmission


@pytest.fixture
def admission() -> FakeAdmission:
    return FakeAdmission()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
async def make(
    admission: FakeAdmission, pauses: list[float]
) -> AsyncIterator[Callable[..., ModelRequestExecutor]]:
    """Executors whose pauses take no time and are checked to hold no lease."""
    made: list[ModelRequestExecutor] = []

    async def sleep(seconds: float) -> None:
        assert not admission.live
        pauses.append(seconds)

    def make(**options: object) -> ModelRequestExecutor:
        given = {"sleep": sleep, "draw": lambda: 1.0, **options}
        made.append(ModelRequestExecutor(admission, **given))
        return made[-1]

    yield make
    for executor in made:
        await executor.aclose()
    assert not admission.live
