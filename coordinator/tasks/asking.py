"""What asks on a task pool for a caller: for tasks, and a word on a lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from forebay.coordinator.shard.membership import Membership
from forebay.coordinator.shard.operation import Args, Operation, Question, Result


class Admit(Question):
    """A question whose late answer holds leases that nobody waits for."""

    __slots__ = ("_return_late",)

    def __init__(
        self,
        args: Args,
        loop: asyncio.AbstractEventLoop,
        return_late: Callable[[Result, Membership | None], None],
    ) -> None:
        super().__init__(args, loop)
        self._return_late = return_late

    def done(self, result: Any) -> None:
        """Resolve the future, or give back what nobody waits for any more."""
        if self.future.cancelled() and isinstance(result, list):
            self._return_late(result, self.sent_as)
        super().done(result)

    def late(self, result: Result) -> None:
        """Give back what was admitted."""
        self._return_late(result, self.sent_as)


class Word(Operation):
    """A word on a lease, which a new membership would not have."""

    __slots__ = ()

    @property
    def is_wanted(self) -> bool:
        """Whether it is to be said again under a new membership: no."""
        return False
