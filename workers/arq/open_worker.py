"""Connect and make a worker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from forebay.contracts.events import EventSink
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.event_outlet import EventOutlet
from forebay.coordinator.server_connection import ServerConnection
from forebay.workers.arq.settings import address_of
from forebay.workers.arq.worker import ForebayWorker
from forebay.workers.runs.cells import MakeCellMaker

if TYPE_CHECKING:
    from forebay.workers.runs.allowlist import Allowlist  # with an extra


async def open_worker(
    url: str | None = None,
    *,
    pool: str | None = None,
    member: MemberSettings | None = None,
    allowed: Allowlist | None = None,
    event_sinks: Sequence[EventSink] = (),
    **settings: Any,
) -> ForebayWorker:
    """Connect and make a worker; ``await worker.async_run()`` runs it.

    Args:
        url: the server: ``redis://``, ``rediss://`` or ``unix://``; by default that of the setting
            ``redis_settings``.
        pool: the task pool, by default ``default``.
        member: how the process takes part in the fleet.
        allowed: the worker makes the cells of runs, which may use this and no other variable, file
            or host; without it, and without ``cells``, it makes none.
        event_sinks: take the events of tasks and of the calls that they make (docs/events.md).
        settings: what ``ForebayWorker`` and ``arq.Worker`` take; of arq's settings class what
            `settings_of` returns.

    Returns:
        The worker, connected, whose functions do not run before ``async_run``.

    Raises:
        ConfigurationError, CoordinatorError: a setting is wrong, or the server cannot be used.
    """
    address = address_of(url, settings)
    if allowed is not None:
        keys = tuple(sorted(name for name in allowed.variables if os.environ.get(name)))
        settings = {"cells": _cells_within(allowed), "keys": keys} | settings
    settings["events"] = EventOutlet(event_sinks)
    connection = await ServerConnection.open(address, member)
    try:
        return ForebayWorker(connection, pool=pool, **settings)
    except BaseException:
        await connection.close()
        raise


def _cells_within(allowed: Allowlist) -> MakeCellMaker:
    from forebay.workers.runs.run_cells import RunCells  # noqa: PLC0415 - an extra

    return partial(RunCells, environ=os.environ, allowed=allowed)
