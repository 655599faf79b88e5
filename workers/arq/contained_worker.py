"""arq's worker with a loop that no job can end; knows no pool.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from signal import SIG_IGN, Signals, getsignal
from typing import Any

from arq.worker import Worker

from forebay.workers.arq.contained_jobs import run_to_end


class ContainedWorker(Worker):
    """``arq.Worker`` that no job ends, stopped by SIGHUP as by SIGTERM; made as arq's is."""

    _caller: asyncio.Task[Any] | None = None

    def run(self) -> None:
        """Run the worker as arq does; no job's task ends the loop."""
        self.main_task = self.loop.create_task(self.main())
        try:
            with contextlib.suppress(asyncio.CancelledError):
                run_to_end(self.loop, self.main_task, goes_on=lambda: True)
        finally:
            closing = self.loop.create_task(self.close())
            run_to_end(self.loop, closing, goes_on=lambda: True)

    async def async_run(self) -> None:
        """Do as arq does."""
        self._caller = asyncio.current_task()
        await super().async_run()

    @property
    def was_main_cancelled(self) -> bool:
        """Whether a job cancelled the worker's own task, rather than its caller."""
        is_caller_cancelled = self._caller is not None and self._caller.cancelling() > 0
        main = self.main_task
        return main is not None and main.cancelled() and not is_caller_cancelled

    def forget_cancelled(self) -> None:
        """Forget tasks that were cancelled, which arq would raise in its loop and end."""
        for job_id, task in [*self.tasks.items()]:
            if task.done() and task.cancelled():
                del self.tasks[job_id]

    async def _poll_iteration(self) -> None:
        self.forget_cancelled()
        await super()._poll_iteration()

    async def _cancel_aborted_jobs(self) -> None:
        with contextlib.suppress(UnicodeDecodeError):  # of ids that are no text the beat disposes
            await super()._cancel_aborted_jobs()

    def _add_signal_handler(self, signum: Signals, handler: Callable[[Signals], None]) -> None:
        """Handle SIGHUP as SIGTERM, unless the process was started to ignore it, as by `nohup`."""
        super()._add_signal_handler(signum, handler)
        if signum is Signals.SIGTERM and getsignal(Signals.SIGHUP) is not SIG_IGN:
            super()._add_signal_handler(Signals.SIGHUP, handler)
