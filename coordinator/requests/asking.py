"""What asks on a request shard: an attempt, a look at it, a registration, a look at members."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from forebay.contracts.errors import ForebayError
from forebay.contracts.requests import RequestAdmissionDecision, RequestAdmissionItem
from forebay.coordinator.shard.membership import Membership
from forebay.coordinator.shard.operation import Args, Operation, Result


class Desk(Protocol):
    """Who is told of attempts: their shard."""

    loop: asyncio.AbstractEventLoop

    def answered(self, attempt: Attempt, result: Result, sent_as: Membership | None) -> None:
        """Take what the shard says of an attempt, under the membership that asked."""

    def failed(self, attempt: Attempt, error: ForebayError) -> None:
        """Tell an attempt's caller that the shard could not be asked."""

    def unwanted(self, attempt: Attempt) -> None:
        """Give back what an attempt took that nobody waits for."""


class Attempt(Operation):
    """One attempt that asked and has no answer yet.

    Args:
        item: what is asked.
        args: the operation; its last argument is the wait in microseconds, "try", or "" for ever.
        desk: who is told.

    Attributes:
        future: told the decision.
        asker: the task that asked.
        asked_at: loop time when it asked first.
        deadline: loop time at which its wait is over; None for never.
        is_waiting: whether it stands in the queue, as far as this process knows.
        is_rechecked: whether a look at what became of it is on its way.
        is_in_doubt: whether a wake-up may have been lost since its last operation left, so that a
            reply to that may be older than the wake-up.
        is_granted: whether its lease has arrived, by reply or by notice.
        lost_because: why its lease ended, where a notice said so before the lease arrived.
    """

    __slots__ = (
        "_desk",
        "asked_at",
        "asker",
        "deadline",
        "future",
        "is_granted",
        "is_in_doubt",
        "is_rechecked",
        "is_waiting",
        "item",
        "lost_because",
    )

    def __init__(self, item: RequestAdmissionItem, args: Args, desk: Desk) -> None:
        super().__init__(args)
        self.item = item
        self.future: asyncio.Future[RequestAdmissionDecision] = desk.loop.create_future()
        self.asker = asyncio.current_task(desk.loop)
        self.asked_at = desk.loop.time()
        wait = args[-1]
        self.deadline = None if wait in {"", "try"} else self.asked_at + int(wait) / 1e6
        self.is_waiting = False
        self.is_rechecked = False
        self.is_in_doubt = False
        self.is_granted = False
        self.lost_because: str | None = None
        self._desk = desk

    @property
    def encoded_id(self) -> str:
        """The attempt id as it stands in keys and replies."""
        return str(self.args[1])

    @property
    def is_wanted(self) -> bool:
        """Whether its caller still waits."""
        return not self.future.done()

    def shorten(self, now: float) -> None:
        """Ask from now on for what is left of its wait."""
        if self.deadline is not None:
            self.args = (*self.args[:-1], str(max(0, round((self.deadline - now) * 1e6))))

    def prepare(self) -> None:
        """Its reply will be younger than what was lost up to now."""
        self.is_in_doubt = False

    def done(self, result: Result | ForebayError) -> None:
        """Take the shard's answer to the question."""
        if isinstance(result, ForebayError):
            self._desk.failed(self, result)
        else:
            self._desk.answered(self, result, self.sent_as)

    def late(self, result: Result) -> None:
        """Nobody waits any more: give back what it took."""
        if result[0] in {"granted", "waiting"}:
            self._desk.unwanted(self)


class Recheck(Operation):
    """Asks what became of an attempt: the truth, should a wake-up have been lost.

    Where the server is away for longer than a call may take, or refuses, the attempt fails, as a
    new one would (spec 06, *When Redis is away*: ``fail``): else it might wait for ever.
    """

    __slots__ = ("_attempt", "_desk")

    def __init__(self, attempt: Attempt, desk: Desk) -> None:
        super().__init__(("state", attempt.encoded_id), takes=False)
        attempt.is_rechecked = True
        self._attempt = attempt
        self._desk = desk

    def prepare(self) -> None:
        """Its reply will be younger than what was lost up to now."""
        self._attempt.is_in_doubt = False

    @property
    def is_wanted(self) -> bool:
        """Never: under another membership the attempt itself is asked anew."""
        self._attempt.is_rechecked = False
        return False

    def done(self, result: Result | ForebayError) -> None:
        """Take the shard's answer."""
        self._attempt.is_rechecked = False
        if isinstance(result, ForebayError):
            self._desk.failed(self._attempt, result)
        else:
            self._desk.answered(self._attempt, result, self.sent_as)


class Registration(Operation):
    """Registers again what this process uses, under a new membership.

    Args:
        args: the operation.
        failed: told that it has to be tried again.
    """

    __slots__ = ("_failed",)

    def __init__(self, args: Args, failed: Callable[[Args], None]) -> None:
        super().__init__(args)
        self._failed = failed

    def done(self, result: Result | ForebayError) -> None:
        """See whether it was taken: without it every acquire would be denied."""
        if isinstance(result, ForebayError):
            self._failed(self.args)


class Sweep(Operation):
    """Ends members that died on a shard where nobody else calls.

    Args:
        look_again: called with the seconds until the next look, None where nothing is held.
    """

    __slots__ = ("_look_again",)

    def __init__(self, look_again: Callable[[float | None], None]) -> None:
        super().__init__(("sweep",), takes=False)
        self._look_again = look_again

    @property
    def is_wanted(self) -> bool:
        """Never: a new membership sweeps anew."""
        return False

    def done(self, result: Result | ForebayError) -> None:
        """Take the shard's answer; without one the next sweep comes after an interval."""
        match result:
            case ["swept", int(microseconds)]:
                self._look_again(microseconds / 1e6)
            case _:
                self._look_again(None)
