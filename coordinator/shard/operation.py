"""What travels in a batch, and what a shard is told beside the results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from forebay.contracts.errors import ForebayError
from forebay.contracts.outcomes import ReleaseReason, ReleaseResult
from forebay.coordinator.shard.membership import Membership

Result = list[Any]
Args = tuple[str | int | bytes, ...]


class Operation:
    """One operation on its way; as such, nobody waits for what becomes of it.

    Args:
        args: its name and arguments, as they stand in the script's ARGV.
        frees: whether it gives back; what frees is repeated until acknowledged.
        takes: whether it may need memory of the server; what frees does not.

    Attributes:
        given_up: whether its caller was told an error already.
        payloads: what the reply of its call carried beside the results, which speak of it by index.
        sent_as: the membership under which it was last sent.
        since: loop time when it was submitted.
    """

    __slots__ = ("args", "frees", "given_up", "payloads", "sent_as", "since", "takes")

    def __init__(self, args: Args, *, frees: bool = False, takes: bool = True) -> None:
        self.args = args
        self.frees = frees
        self.takes = takes and not frees
        self.given_up = False
        self.payloads: Sequence[bytes] = ()
        self.sent_as: Membership | None = None
        self.since = 0.0

    def prepare(self) -> None:
        """Settle its arguments, just before it is sent under a number for the first time."""

    @property
    def is_wanted(self) -> bool:
        """Whether it is worth sending again under another membership."""
        return not self.given_up

    def done(self, result: Result | ForebayError) -> None:
        """Tell its result, or the error that ended its caller's wait; called once."""

    def late(self, result: Result) -> None:
        """Tell a result that came after ``done`` was told an error: what it took goes back."""


class Question(Operation):
    """An operation whose result is awaited."""

    __slots__ = ("future",)

    def __init__(self, args: Args, loop: asyncio.AbstractEventLoop, *, frees: bool = False) -> None:
        super().__init__(args, frees=frees)
        self.future: asyncio.Future[Result] = loop.create_future()

    def done(self, result: Result | ForebayError) -> None:
        """Resolve the future."""
        if self.future.done():
            return
        if isinstance(result, ForebayError):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Release(Operation):
    """An operation that ends a lease of either layer; it never raises (spec 02, 06).

    Attributes:
        future: what it did; ``deferred`` where it was not acknowledged in time, and still will be.
    """

    __slots__ = ("future",)

    def __init__(self, args: Args, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(args, frees=True)
        self.future: asyncio.Future[ReleaseResult] = loop.create_future()

    def done(self, result: Result | ForebayError) -> None:
        """Resolve the future."""
        if self.future.done():
            return
        if isinstance(result, ForebayError):
            reason, diagnostics = ReleaseReason.DEFERRED, {"error": str(result)}
        else:
            reason, diagnostics = ReleaseReason(result[0]), {}
        self.future.set_result(
            ReleaseResult(
                released=reason is ReleaseReason.RELEASED, reason=reason, diagnostics=diagnostics
            )
        )


class Listener(Protocol):
    """What a session tells the shard it serves; what a method raises is logged."""

    def on_notices(self, generation: str, notices: Sequence[list[Any]]) -> None:
        """Take notices: something befell waiters or leases of this member."""

    def on_next_wake(self, seconds: float | None) -> None:
        """Take how far from now time alone may change something; None if nobody waits."""

    def on_joined(self, membership: Membership) -> list[Operation]:
        """Return what must come before everything else in a membership, such as registering.

        Where it raises, the process is no member and joins again after a pause.
        """

    def on_lost(self, membership: Membership) -> None:
        """Called when a membership ends, possibly twice. Its leases are, or will be, others'."""

    def on_resumed(self) -> None:
        """Ask for what is waited for: wake-ups may have been lost."""
