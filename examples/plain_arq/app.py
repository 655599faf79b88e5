"""An arq application whose workers share one provider limit; arq itself is used as it is.

Adopting Forebay is the ``http_client`` in ``on_startup``. Jobs, queues, retries and results are
arq's; a job that waits for its turn at the provider occupies a slot of its worker, as before.
"""

from __future__ import annotations

import os
from typing import Any

from arq import Retry
from arq.connections import RedisSettings
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

import forebay

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")


async def on_startup(ctx: dict[str, Any]) -> None:
    """Make the client that the jobs use."""
    ctx["openai"] = AsyncOpenAI(
        http_client=forebay.http_client(REDIS_URL, max_parallel_requests=8)  # the changed line
    )


async def on_shutdown(ctx: dict[str, Any]) -> None:
    """Close it: the worker leaves the fleet and what it held is free."""
    await ctx["openai"].close()


async def summarise(ctx: dict[str, Any], text: str) -> str:
    """Ask a model; what outlasts the SDK's own retries is tried again by arq."""
    client: AsyncOpenAI = ctx["openai"]
    try:
        answer = await client.chat.completions.create(
            model="mock-chat", messages=[{"role": "user", "content": f"Summarise: {text}"}]
        )
    except (APIStatusError, APIConnectionError) as error:
        raise Retry(defer=1.0 * ctx["job_try"]) from error
    return answer.choices[0].message.content or ""


class WorkerSettings:
    """The settings of ``arq app.WorkerSettings``."""

    functions = (summarise,)
    on_startup = on_startup
    on_shutdown = on_shutdown
    redis_settings = RedisSettings.from_dsn(REDIS_URL)
    max_jobs = 20
    poll_delay = 0.1
