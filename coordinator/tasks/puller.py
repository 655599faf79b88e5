"""``TaskPuller``: keeps a process's slots filled with admitted tasks; knows no arq.

Rules: design 04, *From submit to finish*.

It asks for as many tasks as there are free slots when the call leaves, so that the tasks which end
in a turn of the event loop and the ask for their successors travel in one call. Where fewer come
than asked for it is silent until it is woken: nothing polls.

A hint travels over another connection than the replies, and may overtake the reply of an ask under
way. So a hint is used up by an ask that leaves after it, never by a reply.

The pool may think a slot free whose job is over but for its last hook. A process without a free
slot keeps neither a task nor a wake-up from others: it gives the task back and asks for none. That
ends its being idle and lets the pool wake the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from forebay.contracts.outcomes import TaskDeferred
from forebay.contracts.tasks import TaskAdmissionLease
from forebay.coordinator.logs import Logger
from forebay.coordinator.shard.operation import Outcome
from forebay.coordinator.supervision import Guard
from forebay.coordinator.tasks.controller import UNREAD_SECONDS, TaskAdmissionController
from forebay.coordinator.tasks.operations import Admit, Admitted

log = Logger("forebay.tasks")


class TaskPuller:
    """Asks one pool for tasks.

    Args:
        controller: the pool.
        free_slots: how many tasks may start now, besides those that were asked for.
        start: starts an admitted task; called once for each lease.
        expired: told the id of each task whose payload was gone when its turn came.
        lost: told the id of each task that was lost with a member too often, and those members.
        in_progress_seconds: how long arq's in-progress mark of a task lives.
        under_pressure: resources whose provider has no room now; tasks that ask for them are taken
            only where there are no others.
        takes_pushes: whether a lone task may come unasked while this process is idle.
    """

    def __init__(
        self,
        controller: TaskAdmissionController,
        *,
        free_slots: Callable[[], int],
        start: Callable[[TaskAdmissionLease], None],
        expired: Callable[[str], None],
        lost: Callable[[str, Sequence[str]], None],
        in_progress_seconds: float,
        under_pressure: Callable[[], Iterable[str]] = tuple,
        takes_pushes: bool = True,
    ) -> None:
        self._controller = controller
        self._free_slots = free_slots
        self._start = start
        self._expired = expired
        self._lost = lost
        self._in_progress_seconds = in_progress_seconds
        self._under_pressure = under_pressure
        self._loop = asyncio.get_running_loop()
        self._guard = Guard(log)
        self._asked = 0
        self._next: Callable[[], Admit] | None = None  # makes the ask that has not left yet
        self._may_be_work = True  # something may have changed since the last ask left
        self._is_idle = False  # the pool may take this process for one with a free slot
        self._is_stopped = False
        controller.watch(self._on_change)
        controller.note_in_progress_seconds(in_progress_seconds)
        if takes_pushes:
            controller.accept_pushes(self._take)

    def look(self) -> None:
        """Ask for tasks if a slot is free and tasks may wait; called when a slot gets free."""
        if self._is_stopped or self._next is not None or not self._may_be_work:
            return
        free = self._free_slots()
        if free > self._asked or (free <= 0 and self._is_idle):
            self._ask()

    def _ask(self) -> None:
        if self._next is not None:
            return
        slots = 0

        def make() -> Admit:
            nonlocal slots
            slots = self._settle(slots)
            pressed = tuple(self._under_pressure())
            return Admit(slots, self._in_progress_seconds, pressed, self._controller.seen)

        def on_outcome(outcome: Outcome[Admitted]) -> bool:
            nonlocal slots
            asked, slots = slots, 0
            if isinstance(outcome, Admitted):
                self._answered(asked, outcome)
            else:
                self._failed(make, asked)
            return True

        self._next = make
        self._controller.session.submit(make, on_outcome)

    def stop(self) -> None:
        """Stop asking; tasks that still arrive go back to the queue."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._ask()

    def _take(self, lease: TaskAdmissionLease) -> None:
        """Start a task, or return it where no slot is free or its start raised."""
        if self._is_stopped:
            self._controller.return_unstarted(lease)
        elif self._free_slots() > 0:
            if not self._guard.call(self._start, lease):  # at once it would raise again
                later = TaskDeferred(counts="nothing", delay_seconds=UNREAD_SECONDS)
                self._controller.finish(lease, later)
        else:
            self._controller.return_unstarted(lease)
            self._ask()

    def _on_change(self) -> None:
        self._may_be_work = True
        self.look()

    def _settle(self, before: int) -> int:
        """Return the number of tasks to ask for, when the call is sent."""
        self._next = None
        self._may_be_work = False
        self._asked -= before
        slots = 0 if self._is_stopped else max(0, self._free_slots() - self._asked)
        self._asked += slots
        return slots

    def _answered(self, slots: int, admitted: Admitted) -> None:
        """Start the tasks of an answer."""
        self._asked -= slots
        admission = self._controller.take_admission(admitted)
        self._is_idle = admitted.given < slots
        if not self._is_idle:
            self._may_be_work = True
        for lease in admission.leases:
            self._take(lease)
        for task_id in admission.expired:
            self._expired(task_id)
        for task_id, members in admission.lost.items():
            self._lost(task_id, members)
        self.look()

    def _failed(self, ask: Callable[[], Admit], slots: int) -> None:
        """Ask again after a pause, as the server is away or full."""
        self._asked -= slots
        if self._next is ask:
            self._next = None  # it was given up before it left
        if not self._controller.session.is_closed:
            again = self._ask if self._is_stopped else self._on_change
            self._loop.call_later(self._controller.recheck_seconds, self._guard.call, again)
