"""An arq application whose jobs wait in one fair queue; all else stays arq's."""

from __future__ import annotations

import asyncio
import time
from typing import Any


async def enrich(_ctx: dict[str, Any], _number: int) -> float:
    """Stand for some work; return when it was done."""
    await asyncio.sleep(0.02)
    return time.time()


class WorkerSettings:
    """What ``forebay worker app.WorkerSettings`` runs; ``arq app.WorkerSettings`` ran it before."""

    functions = (enrich,)
    max_jobs = 4
