"""Fixtures of end-to-end tests: a program's connection to the default pool."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from forebay.workers.arq.pool import JobPool, create_pool
from tests.support_arq import check_books


@pytest.fixture
async def jobs(redis_url: str) -> AsyncIterator[JobPool]:
    """The default pool, as a program enqueues into it; the test must leave its books in order."""
    async with await create_pool(redis_url) as jobs:
        yield jobs
    await check_books(redis_url)
