"""Operations as values, and the interface of a shard to its session (spec 06)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from forebay.contracts.errors import CoordinatorUnavailable, ForebayError
from forebay.contracts.outcomes import ReleaseReason, ReleaseResult
from forebay.coordinator.server.membership import Membership

Args = tuple[str | int | bytes, ...]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Reply(NamedTuple):
    """What a shard answers to one operation.

    Attributes:
        terms: its result, a status word first.
        membership: under which it was sent.
        payloads: what the reply of its call bore beside the results, which speak of it by index.
    """

    terms: Sequence[Any]
    membership: Membership
    payloads: Sequence[bytes]


class Operation(Generic[T_co]):
    """One operation of a batch, as a value.

    Attributes:
        is_release: whether it gives back; a release is repeated until it is acknowledged, whatever
            its caller was told, and runs in a server without memory.
        needs_memory: whether a server without memory refuses it.
        outlives_membership: whether it is sent again where the membership ends before it was
            carried out; its caller is told `ENDED` otherwise.
        is_recheck: whether it only asks for what the shard would tell by itself; others go first.
    """

    __slots__ = ()

    is_release: ClassVar[bool] = False
    needs_memory: ClassVar[bool] = True
    outlives_membership: ClassVar[bool] = True
    is_recheck: ClassVar[bool] = False

    @property
    def group_key(self) -> str | None:
        """The group whose operations wait for each other; None to be sent before all groups'."""
        return None

    def encode(self) -> Args:
        """Return its name and arguments, as they stand in the ARGV of its shard's script."""
        raise NotImplementedError

    def decode(self, reply: Reply) -> T_co:
        """Return what its caller is told.

        Raises:
            Exception: the reply is none that this version knows; the caller is told an error.
        """
        raise NotImplementedError

    def excuse(self, error: ForebayError) -> T_co:
        """Return what its caller is told where no result came.

        Raises:
            ForebayError: ``error``, as there is nothing else to tell.
        """
        raise error

    def undo(self, reply: Reply) -> Sequence[Operation[Any]]:  # noqa: ARG002
        """Return what gives back what a reply gave to a caller that has gone."""
        return ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The membership ended before an operation was carried out."""


ENDED: Final = Ended()


Outcome: TypeAlias = "T | Ended | ForebayError"
"""What the caller of an operation is told."""
Told: TypeAlias = "Callable[[Outcome[T]], bool]"
"""Takes an outcome; returns whether a caller is left, as the operation is undone otherwise."""


def resolve(future: asyncio.Future[T], operation: Operation[T], outcome: Outcome[T]) -> bool:
    """Let a future bear an outcome; return False where nobody waits for it any more."""
    if future.done():
        return False
    try:
        if isinstance(outcome, Ended):
            outcome = CoordinatorUnavailable(
                "the membership ended before this was done; try again."
            )
        value = operation.excuse(outcome) if isinstance(outcome, ForebayError) else outcome
    except ForebayError as error:
        future.set_exception(error)
    else:
        future.set_result(value)
    return True


class Saying(Operation[None]):
    """An operation whose result says nothing."""

    __slots__ = ()

    def decode(self, reply: Reply) -> None:
        """Return nothing."""


class EndOfLease(Operation[ReleaseResult]):
    """An operation that ends a lease of either layer; its caller is told no error (spec 02, 06)."""

    __slots__ = ()

    is_release: ClassVar[bool] = True
    needs_memory: ClassVar[bool] = False

    def decode(self, reply: Reply) -> ReleaseResult:
        """Return what it did."""
        reason = ReleaseReason(reply.terms[0])
        return ReleaseResult(released=reason is ReleaseReason.RELEASED, reason=reason)

    def excuse(self, error: ForebayError) -> ReleaseResult:
        """Return that it was not acknowledged in time, and still will be."""
        return ReleaseResult(
            released=False, reason=ReleaseReason.DEFERRED, diagnostics={"error": str(error)}
        )


class Leaves(Operation[bool]):
    """An operation that leaves the shard; its caller is told whether that is done."""

    __slots__ = ()

    is_release: ClassVar[bool] = True
    needs_memory: ClassVar[bool] = False

    def decode(self, reply: Reply) -> bool:
        """Return whether this process has left; otherwise more has to be given back first."""
        return bool(reply.terms[0] == "left")


class Listener(Protocol):
    """What a session tells the shard that it serves; what a method raises is logged."""

    def on_notices(self, generation: str, notices: Sequence[list[Any]], /) -> None:
        """Take notices: something befell waiters or leases of this member."""

    def on_next_wake(self, seconds: float | None) -> None:
        """Take how far from now time alone may change something; None if nobody waits."""

    def on_joined(self, membership: Membership, /) -> Sequence[tuple[Operation[Any], Told[Any]]]:
        """Return the operations that come first in a membership, each with the caller of it.

        Where it raises, the process is no member and joins again after a pause.
        """

    def on_lost(self, membership: Membership, /) -> None:
        """Called when a membership ends, possibly twice.

        Its leases are, or soon will be, held by others.
        """

    def on_resumed(self) -> None:
        """Ask for the state of all attempts that wait: wake-ups may have been lost."""

    def on_unclaimed(self, operation: Operation[Any], reply: Reply) -> None:
        """Give back what a reply gave to a caller that has gone; see `Operation.undo`."""
