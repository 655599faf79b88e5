"""A process of SDK callers: the OpenAI SDK below leases, and a line in a file for each call.

Each line is ``[began, ended, what]``: ``ok``, or the type of the error that the caller was told.
SIGUSR1 blocks the event loop for as long as the file ``block`` says.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from openai import AsyncOpenAI, OpenAIError

import forebay
from forebay.transports import HttpResolver, asking_as

MODEL: Final = "mock-large"
PROVIDER: Final = "local"
CAP: Final = 8
HANG_SECONDS: Final = 45.0
"""A call that takes longer hangs: its own limits, queue and provider, are far below."""
QUEUE_SECONDS: Final = 15.0


def read_weight(weights: Path, tenant: str) -> float:
    """Return the present weight of a tenant, which the run writes into a file."""
    return float(json.loads(weights.read_text()).get(tenant, 1.0))


async def call_on(client: AsyncOpenAI, file: Any, tenant: str, weights: Path, seed: int) -> None:
    """Make calls one after the other, and write a line about each."""
    draw = random.Random(seed)
    while True:
        await asyncio.sleep(draw.uniform(0.0, 0.2))
        weight = read_weight(weights, tenant)
        began, what = time.monotonic(), "ok"
        try:
            async with asyncio.timeout(HANG_SECONDS):
                with asking_as(forebay.RequestGroupSpec(key=tenant, weight=weight)):
                    await client.chat.completions.create(
                        model=MODEL, messages=[{"role": "user", "content": f"{draw.random()}"}]
                    )
        except TimeoutError:
            what = "hung"
        except (forebay.ForebayError, OpenAIError) as error:
            cause = error.__cause__ if isinstance(error, OpenAIError) else None
            known = isinstance(cause, forebay.ForebayError)
            what = type(cause if known else error).__name__
        except Exception as error:  # noqa: BLE001 - that is a difference, not an end
            what = f"untyped {type(error).__name__}: {error}"
        file.write(json.dumps([began, time.monotonic(), what]) + "\n")


async def main(url: str, base_url: str, folder: Path, tenants: list[str], seed: int) -> None:
    """Call for each tenant, six at a time, until the process is ended."""
    block = folder / "block"
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(float(block.read_text())))
    host = base_url.split("/")[2]
    settings = forebay.MemberSettings(ttl_seconds=3.0, call_timeout_seconds=2.0)
    http = forebay.http_client(
        url,
        max_parallel_requests=CAP,
        settings=settings,
        resolve=HttpResolver({host: PROVIDER}),
        queue_wait_timeout_seconds=QUEUE_SECONDS,
    )
    with (folder / f"calls-{os.getpid()}").open("w", buffering=1) as file:
        async with AsyncOpenAI(
            http_client=http,
            base_url=base_url,
            api_key="none",
            max_retries=0,
            timeout=20.0,
            default_headers={"x-forebay-tag": str(os.getpid())},
        ) as client:
            await asyncio.gather(
                *(
                    call_on(client, file, tenant, folder / "weights", seed + number)
                    for number, tenant in enumerate(tenants * 6)
                )
            )


if __name__ == "__main__":
    url, base_url, folder, tenants, seed = sys.argv[1:]
    asyncio.run(main(url, base_url, Path(folder), tenants.split(","), int(seed)))
