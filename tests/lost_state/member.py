"""A process of callers below leases; notes each call, and each lease that it was told it lost.

The file ``calls-<pid>`` has lines ``[began, ended, what]``, ``lost-<pid>`` has instants, each with
a reason; instants are of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import forebay
from forebay.transports import HttpResolver

PROVIDER_MODEL: Final = forebay.ProviderModelKey(provider_name="local", model_id="mock-large")
REGISTERED_CAP: Final = 12
"""Above the operator's override, so that a lost override lets more calls through."""
CALLERS: Final = 6
"""In each process; the first one asks for embeddings."""
CONFIG: Final = forebay.RequestAdmissionConfig(
    tuning=forebay.RequestAdmissionTuningConfig(rule="aimd", successes_until_increase=7),
    quotas=forebay.RequestQuotas(requests_per_minute=60_000),
    max_hold_seconds=600.0,
)
"""Each of these leaves a key or a field, which must be back."""
BODIES: Final[dict[str, dict[str, Any]]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "so"}]},
    "embeddings": {"input": "so"},
}


async def call_on(client: Any, path: str, file: Any) -> None:
    """Make calls one after the other, and write a line about each."""
    body = {"model": PROVIDER_MODEL.model_id} | BODIES[path]
    while True:
        began, what = time.monotonic(), "ok"
        try:
            answer = await client.post(path, json=body)
            answer.raise_for_status()
        except forebay.ForebayError as error:
            what = type(error).__name__
            await asyncio.sleep(0.02)
        file.write(json.dumps([began, time.monotonic(), what]) + "\n")


async def main(url: str, base_url: str, folder: Path, ttl_seconds: float) -> None:
    """Call until the process is ended."""
    settings = forebay.MemberSettings(ttl_seconds=ttl_seconds, recheck_seconds=0.3)
    with (
        (folder / f"calls-{os.getpid()}").open("w", buffering=1) as calls,
        (folder / f"lost-{os.getpid()}").open("w", buffering=1) as lost,
    ):
        async with forebay.connect(
            url, settings, on_lease_lost=lambda _, why: lost.write(f"{time.monotonic()} {why}\n")
        ) as requests:
            client = forebay.http_client(
                requests,
                max_parallel_requests=REGISTERED_CAP,
                config=CONFIG,
                resolve=HttpResolver({base_url.split("/")[2]: PROVIDER_MODEL.provider_name}),
                queue_wait_timeout_seconds=120.0,
                client_options={
                    "base_url": base_url,
                    "timeout": 60.0,
                    "headers": {"x-forebay-tag": str(os.getpid())},
                },
            )
            async with client:
                paths = itertools.chain(["embeddings"], itertools.repeat("chat/completions"))
                await asyncio.gather(
                    *(call_on(client, path, calls) for path in itertools.islice(paths, CALLERS))
                )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])))
