"""The operations of an attempt in ``lua/requests/batch.lua``, and the attempt.

Rules: design 02; design 03.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from forebay.contracts.errors import ForebayError
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.contracts.settings import LONGEST_SECONDS
from forebay.coordinator.keys import encode
from forebay.coordinator.shard.operation import (
    Args,
    Ended,
    Operation,
    OperationWithoutValue,
    Outcome,
    Reply,
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The attempt stands in the queue of its shard, under a membership."""

    member_id: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The shard does not know the attempt, as the server lost its state."""


Answer = RequestAdmissionLease | RequestAdmissionDenied | Waiting | Unknown
"""The states of an attempt that a reply or a notice of its shard reports."""


def decode_answer(
    item: RequestAdmissionItem, terms: Sequence[Any], generation: str, member_id: str
) -> Answer:
    """Decode ``[status, ...]``, the state of an attempt in a result or a notice.

    Raises:
        ValueError: another status.
    """
    match terms[0]:
        case "granted":
            return decode_lease(item, terms, generation, member_id)
        case "denied":
            return decode_denial(item, terms)
        case "waiting":
            return Waiting(member_id)
        case "unknown":
            return Unknown()
        case word:
            raise ValueError(f"an attempt that is {word!r}")


def decode_lease(
    item: RequestAdmissionItem, terms: Sequence[Any], generation: str, member_id: str
) -> RequestAdmissionLease:
    """Return the lease that a grant ``[.., acquired_us, limit, cuts, effective_max]`` describes."""
    acquired_us, limit, cuts, effective_max = terms[-4:]
    return RequestAdmissionLease(
        lease_id=item.attempt_id,
        item=item,
        acquired_at=acquired_us / 1e6,
        limit_at_admission=limit,
        cuts_at_admission=cuts,
        effective_max=effective_max,
        generation=generation,
        member_id=member_id,
    )


def decode_denial(item: RequestAdmissionItem, terms: Sequence[Any]) -> RequestAdmissionDenied:
    """Return the denial that ``["denied", reason, available_us, retry_after_us]`` describes.

    A ``never_fits`` or, of a timeout, a ``lacks_quota`` may follow, with the budget.
    """
    _denied, reason, available_us, retry_after_us, *why = terms
    return RequestAdmissionDenied(
        item=item,
        reason=RequestDenialReason(reason),
        retry_after_seconds=retry_after_us / 1e6 if available_us else None,
        available_at=available_us / 1e6 if available_us else None,
        diagnostics={"code": why[0], "budget": why[1]} if why else {},
    )


def wait_argument(timeout_seconds: float | None) -> str:
    """Return a wait, from 0 on, in microseconds as the script wants it; "" waits for ever."""
    if timeout_seconds is None or timeout_seconds == math.inf:
        return ""
    return str(round(min(timeout_seconds, LONGEST_SECONDS) * 1e6))


def cost_argument(item: RequestAdmissionItem) -> str | int:
    """Return an attempt's cost as the script wants it, with the part that is an estimate."""
    cost = item.cost or 0
    return f"{cost}/{item.input_estimate}" if item.input_estimate else cost


def group_key(item: RequestAdmissionItem) -> str:
    """Return the name of an attempt's group; that of its resource by default."""
    return item.group.key if item.group.key is not None else str(item.resource)


@dataclass(frozen=True, slots=True)
class Acquire(Operation[Answer]):
    """The operation that asks for a lease.

    Attributes:
        item: what is asked.
        wait: in microseconds, or "try", or "" for ever.
    """

    item: RequestAdmissionItem
    wait: str

    outlives_membership: ClassVar[bool] = False  # it is asked anew, for what is left of its wait

    @property
    def group_key(self) -> str:
        """The name of the attempt's group."""
        return group_key(self.item)

    def encode(self) -> Args:
        item = self.item
        return (
            "acquire",
            encode(item.attempt_id),
            item.resource.domain.value,
            encode(self.group_key),
            repr(item.group.weight),
            cost_argument(item),
            self.wait,
        )

    def decode(self, reply: Reply) -> Answer:
        membership = reply.membership
        return decode_answer(self.item, reply.terms, membership.generation, membership.member_id)

    def undo(self, reply: Reply) -> Sequence[Cancel]:
        return taken_back(self.item, reply)


@dataclass(frozen=True, slots=True)
class State(Operation[Answer]):
    """The operation that asks for an attempt's state, as its wake-up may have been lost.

    Where the server is away for longer than a call may take, or refuses, the attempt fails, as a
    new one would (design 06, *When Redis is away*: ``fail``): else it might wait for ever.
    """

    item: RequestAdmissionItem

    needs_memory: ClassVar[bool] = False
    outlives_membership: ClassVar[bool] = False
    is_recheck: ClassVar[bool] = True

    def encode(self) -> Args:
        return ("state", encode(self.item.attempt_id))

    def decode(self, reply: Reply) -> Answer:
        membership = reply.membership
        return decode_answer(self.item, reply.terms, membership.generation, membership.member_id)

    def undo(self, reply: Reply) -> Sequence[Cancel]:
        return taken_back(self.item, reply)


def taken_back(item: RequestAdmissionItem, reply: Reply) -> Sequence[Cancel]:
    """Return the operation that releases a lease or removes a waiter."""
    has_something = reply.terms[0] in {"granted", "waiting"}
    return (Cancel(encode(item.attempt_id)),) if has_something else ()


@dataclass(frozen=True, slots=True)
class Cancel(OperationWithoutValue):
    """The operation that cancels an attempt: removes its waiter or releases its lease."""

    attempt_id: str

    is_release: ClassVar[bool] = True
    needs_memory: ClassVar[bool] = False

    def encode(self) -> Args:
        return ("cancel", self.attempt_id)


class Attempt:
    """An acquire under way, with the outcomes that have arrived.

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
        is_waiting: whether it stands in the queue, as far as this process knows.
        is_rechecked: whether a look at what became of it is on its way.
        is_in_doubt: whether a wake-up may have been lost since its last operation was submitted, so
            that a reply to that may be older than the wake-up.
        lost_because: why its lease ended, where a notice said so before the lease was taken.
    """

    __slots__ = (
        "_arrival", "_arrived", "asked_at", "asker", "deadline", "encoded_id", "end",
        "is_in_doubt", "is_rechecked", "is_waiting", "item", "lost_because",
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
        self.is_waiting = False
        self.is_rechecked = False
        self.is_in_doubt = False
        self.lost_because: str | None = None
        self._arrived: Outcome[Answer] | None = None
        self._arrival: asyncio.Future[None] | None = None

    def deliver(self, outcome: Outcome[Answer]) -> bool:
        """Deliver an outcome; return False where it comes too late and must be undone."""
        if self.end is not None:
            return isinstance(self.end, RequestAdmissionLease)  # a notice brought it before
        if not isinstance(outcome, Waiting | Unknown | Ended):
            self.end = outcome
        self._arrived = outcome
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        return True

    async def next(self) -> Outcome[Answer]:
        """Wait for an outcome, and return the last that has arrived."""
        if self._arrived is None:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        arrived, self._arrived = self._arrived, None
        assert arrived is not None  # noqa: S101 - for mypy; it is what was waited for
        return arrived

    def reopen(self, now: float) -> bool:
        """Wait again for the rest of the queue wait; return False where no time is left."""
        self.end = None
        self.is_waiting = False
        self.lost_because = None
        if self.deadline is None:
            return True
        self.wait = str(max(0, round((self.deadline - now) * 1e6)))
        return now < self.deadline
