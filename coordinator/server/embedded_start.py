"""Starting an embedded server beside an event loop."""

from __future__ import annotations

import asyncio

from forebay.coordinator.server.embedded import EmbeddedServer


async def started(server: EmbeddedServer) -> str:
    """Start an embedded server and return its URL; a cancelled start leaves none behind."""
    starting = asyncio.ensure_future(asyncio.to_thread(server.start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait({starting})  # a thread cannot be cancelled
        await asyncio.to_thread(server.stop)
        raise
