"""Decodes the progress of a run from the reply of the pool's script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from forebay.contracts.runs import CoolingResource, ModelTrouble, RunProgress, RunStop


def decode_progress(terms: Sequence[Any]) -> RunProgress:
    """Decode the reply of ``run_collect`` of ``lua/lib/runs/operations.lua``."""
    _word, done, dropped, row_groups_open, written, ready, cooling, troubles, stop = terms
    return RunProgress(
        records_done=done,
        records_dropped=dropped,
        row_groups_open=row_groups_open,
        row_groups_written=written,
        ready_to_write=tuple(ready),
        cooling=tuple(
            CoolingResource(resource=unquote(resource), until_at=until_us / 1e6, times=times)
            for resource, until_us, times in cooling
        ),
        troubles=tuple(
            ModelTrouble(model=model, status=status, count=count)
            for model, status, count in troubles
        ),
        stop=None if stop is None else _decode_stop(stop),
    )


def _decode_stop(terms: Sequence[Any]) -> RunStop:
    column, failed, finished, reason, running = terms
    return RunStop(
        column=unquote(column),
        failed=failed,
        finished=finished,
        reason=reason,
        tasks_running=running,
    )
