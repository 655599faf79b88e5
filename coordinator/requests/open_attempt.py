"""An acquire under way, from its call to its lease or denial (spec 03)."""

from __future__ import annotations

import asyncio

from forebay.contracts.errors import ForebayError
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
)
from forebay.coordinator.keys import encode
from forebay.coordinator.requests.operations import Answer, Unknown, Waiting
from forebay.coordinator.shard.operation import Ended, Outcome


class Attempt:
    """An acquire under way, and what has arrived for it.

    A notice comes over another connection than the reply and may overtake it, so both arrive here.

    Args:
        item: what is asked.
        wait: for how long, as the operation says it.

    Attributes:
        encoded_id: the attempt id as it stands in keys and replies.
        asker: the task that asked.
        asked_at: loop time when it asked first.
        deadline: loop time at which its wait is over; None for never.
        wait: what is left of it, as `Acquire` says it.
        end: its decision or error; None while it is open.
        is_asked_anew: whether it was asked before, under an earlier membership.
        is_waiting: whether it stands in the queue, as far as this process knows.
        is_rechecked: whether a look at what became of it is on its way.
        is_in_doubt: whether a wake-up may have been lost since its last operation was submitted, so
            that a reply to that may be older than the wake-up.
        lost_because: why its lease ended, where a notice said so before the lease was taken.
    """

    __slots__ = (
        "_arrival", "_arrived", "asked_at", "asker", "deadline", "encoded_id", "end",
        "is_asked_anew", "is_in_doubt", "is_rechecked", "is_waiting", "item", "lost_because",
        "wait",
    )  # fmt: skip

    def __init__(self, item: RequestAdmissionItem, wait: str) -> None:
        loop = asyncio.get_running_loop()
        self.item = item
        self.encoded_id = encode(item.attempt_id)
        self.asker = asyncio.current_task()
        self.asked_at = loop.time()
        self.deadline = None if wait in {"", "try"} else self.asked_at + int(wait) / 1e6
        self.wait = wait
        self.end: RequestAdmissionLease | RequestAdmissionDenied | ForebayError | None = None
        self.is_asked_anew = False
        self.is_waiting = False
        self.is_rechecked = False
        self.is_in_doubt = False
        self.lost_because: str | None = None
        self._arrived: Outcome[Answer] | None = None
        self._arrival: asyncio.Future[None] | None = None

    def tell(self, outcome: Outcome[Answer]) -> bool:
        """Let something arrive; return False where it comes too late and is to be undone."""
        if self.end is not None:
            return isinstance(self.end, RequestAdmissionLease)  # a notice brought it before
        if not isinstance(outcome, Waiting | Unknown | Ended):
            self.end = outcome
        self._arrived = outcome
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        return True

    async def next(self) -> Outcome[Answer]:
        """Return what has arrived last, once something has."""
        if self._arrived is None:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        arrived, self._arrived = self._arrived, None
        assert arrived is not None  # noqa: S101 - for mypy; it is what was waited for
        return arrived

    def reopen(self, now: float) -> bool:
        """Begin anew with what is left of the wait; return False where nothing is."""
        self.end = None
        self.is_asked_anew = True
        self.is_waiting = False
        self.lost_because = None
        if self.deadline is None:
            return True
        self.wait = str(max(0, round((self.deadline - now) * 1e6)))
        return now < self.deadline
