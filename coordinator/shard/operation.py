"""Operations as values, and the interface of a shard to its session (design 06, *Exactly once*)."""

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
    """A shard's reply to one operation.

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
        is_release: whether it releases a lease; it is then repeated until acknowledged, also
            after its caller got an error, and runs in a server without memory.
        needs_memory: whether a server without memory refuses it.
        outlives_membership: whether it is sent again where the membership ends before it was
            carried out; otherwise its outcome is `ENDED`.
        waits_for_server: whether its caller waits on while the server is away, where this member's
            settings say so; it is carried out once, unlike what is asked again.
        is_recheck: whether it only asks for what the shard would tell by itself; others go first.
    """

    __slots__ = ()

    is_release: ClassVar[bool] = False
    needs_memory: ClassVar[bool] = True
    outlives_membership: ClassVar[bool] = True
    waits_for_server: ClassVar[bool] = False
    is_recheck: ClassVar[bool] = False

    @property
    def group_key(self) -> str | None:
        """The group whose operations wait for each other; None to be sent before all groups'."""
        return None

    def encode(self) -> Args:
        """Return its name and arguments, as they stand in the ARGV of its shard's script."""
        raise NotImplementedError

    def decode(self, reply: Reply) -> T_co:
        """Return the value of a reply, for the caller.

        Raises:
            Exception: the reply is none that this version knows; the caller gets an error.
        """
        raise NotImplementedError

    def excuse(self, error: ForebayError) -> T_co:
        """Return the value for a caller whose operation failed with an error.

        Raises:
            ForebayError: ``error``, where no value stands for it.
        """
        raise error

    def undo(self, reply: Reply) -> Sequence[Operation[Any]]:  # noqa: ARG002
        """Return the operation that undoes a reply whose caller has gone."""
        return ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The membership ended before an operation was carried out."""


ENDED: Final = Ended()


Outcome: TypeAlias = "T | Ended | ForebayError"
"""The outcome of an operation, for its caller."""
OnOutcome: TypeAlias = "Callable[[Outcome[T]], bool]"
"""Takes an outcome; returns whether a caller is left, as the operation is undone otherwise."""
Source: TypeAlias = "Operation[T] | Callable[[], Operation[T]]"
"""An operation, or a function that makes it each time its call is about to leave."""
Submitted: TypeAlias = "tuple[Source[Any], OnOutcome[Any]]"


def ignore_outcome(_outcome: Outcome[Any]) -> bool:
    """Ignore the outcome of an operation without a caller."""
    return True


def resolve(future: asyncio.Future[T], operation: Operation[T], outcome: Outcome[T]) -> bool:
    """Set an outcome on a future; return False where its caller has gone."""
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


class OperationWithoutValue(Operation[None]):
    """An operation whose reply has no value for its caller."""

    __slots__ = ()

    def decode(self, reply: Reply) -> None:
        """Return None for every status word."""


class EndOfLease(Operation[ReleaseResult]):
    """An operation that ends a lease of either layer; its caller gets no error.

    Rules: design 02; design 06.
    """

    __slots__ = ()

    is_release: ClassVar[bool] = True
    needs_memory: ClassVar[bool] = False

    def decode(self, reply: Reply) -> ReleaseResult:
        """Return the result of the release."""
        reason = ReleaseReason(reply.terms[0])
        return ReleaseResult(released=reason is ReleaseReason.RELEASED, reason=reason)

    def excuse(self, error: ForebayError) -> ReleaseResult:
        """Return the result for a release that was not acknowledged in time."""
        return ReleaseResult(
            released=False, reason=ReleaseReason.DEFERRED, diagnostics={"error": str(error)}
        )


class Statement(Operation[T_co]):
    """An operation of a member's statement in a rebuild; it is never given up.

    Rules: design 06, *Exactly once*.
    """

    __slots__ = ()

    is_release: ClassVar[bool] = True
    needs_memory: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Listed:
    """Ids that a shard knows of a member; ``rest`` is where the next part begins, "" at the end."""

    ids: Sequence[str]
    rest: str


class Leaves(Operation[bool]):
    """An operation that leaves the shard; its value is whether that is done."""

    __slots__ = ()

    is_release: ClassVar[bool] = True
    needs_memory: ClassVar[bool] = False

    def decode(self, reply: Reply) -> bool:
        """Return whether this process has left; if not, more leases must be released first."""
        return bool(reply.terms[0] == "left")


class Listener(Protocol):
    """Callbacks of a session to its shard; exceptions of a method are logged."""

    def on_notices(self, generation: str, notices: Sequence[list[Any]], /) -> None:
        """Apply notices about waiters or leases of this member."""

    def on_next_wake(self, seconds: float | None) -> None:
        """Take the time until a timer of the shard may change something; None without waiters."""

    def on_joined(self, membership: Membership, /) -> Sequence[Submitted]:
        """Return the operations that come first in a membership, each with the caller of it.

        Where it raises, the process is no member and joins again after a pause.
        """

    def on_forgotten(self, membership: Membership, /) -> Sequence[Submitted]:
        """Return the operations that state this member's leases to a shard that lost state.

        Each is sent again until it is answered, so it counts as a release (`Statement`).
        """

    def on_lost(self, membership: Membership, /) -> None:
        """Called when a membership ends, possibly twice.

        Its leases are, or soon will be, held by others.
        """

    def on_resumed(self) -> None:
        """Ask for the state of all attempts that wait: wake-ups may have been lost."""

    def on_unclaimed(self, operation: Operation[Any], reply: Reply) -> None:
        """Undo a reply whose caller has gone; see `Operation.undo`."""
