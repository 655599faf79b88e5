"""``TaskAdmissionController``: ledger and leases of one task pool of the fleet (design 04)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from forebay.contracts.event_kinds import SchedulerEventKind
from forebay.contracts.outcomes import ReleaseResult, TaskDeferred, TaskOutcome
from forebay.contracts.task_policies import TaskAdmissionView
from forebay.contracts.tasks import Admission, TaskAdmissionBlockSummary, TaskAdmissionLease
from forebay.coordinator.event_outlet import SILENT, EventOutlet
from forebay.coordinator.keys import check_id, pool_shard
from forebay.coordinator.logs import Logger
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.operation import Operation, Reply, Submitted, ignore_outcome
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard
from forebay.coordinator.tasks.events import TaskEvents
from forebay.coordinator.tasks.explaining import read_facts, summary
from forebay.coordinator.tasks.operations import (
    Admit,
    Admitted,
    End,
    Named,
    Unreadable,
    decode_pushed,
)
from forebay.coordinator.tasks.pool_settings import PoolSettings
from forebay.coordinator.tasks.queue import FairTaskQueue
from forebay.coordinator.tasks.registering import Leave, Report
from forebay.coordinator.tasks.restating import Restating
from forebay.coordinator.tasks.snapshots import PoolReader
from forebay.coordinator.tasks.upkeep import Upkeep

UNREAD_SECONDS: Final = 30.0
"""Delay before a task that this member could not read or start is admitted again."""

log = Logger("forebay.tasks")


class TaskAdmissionController(PoolSettings):
    """Admits and finishes tasks of one pool; belongs to one event loop.

    Args:
        server: the process's connection to the pool's server, which is outside cluster mode.
        pool: the pool's name.
        functions: the functions that this process's workers run, stated to the pool.
        on_lease_lost: told of each lease that ended without being finished, so that its task's
            code can be stopped: another member is free to run it.
        events: takes the events of tasks (docs/events.md).

    Attributes:
        events: gives events of tasks to the sinks of this process.
        pool: the pool's name.
        keys: of the pool.
        queue: what goes into it.
        session: the one way of this process to change it.
    """

    def __init__(
        self,
        server: ServerConnection,
        pool: str = "default",
        *,
        functions: Sequence[str] = (),
        on_lease_lost: Callable[[TaskAdmissionLease], None] | None = None,
        events: EventOutlet = SILENT,
    ) -> None:
        self.pool = pool
        self._server = server
        self.keys = pool_shard(pool)
        self.recheck_seconds = server.settings.recheck_seconds
        self._functions = tuple(check_id("function", name) for name in functions)
        self._held: dict[str, TaskAdmissionLease] = {}
        self._writes_all_events = False
        self._start_pushed: Callable[[TaskAdmissionLease], None] | None = None
        self._pushes_seen = 0
        self._loop = asyncio.get_running_loop()
        self._guard = Guard(log, pool=pool)
        self.session = Session(server, self.keys, script("tasks/batch"), Leave(), self)
        self.events = TaskEvents(events, pool, self.session.time.instant)
        self._upkeep = Upkeep(self.session, self.recheck_seconds, self._guard)
        self._restating = Restating(
            self.session, self._held, on_lease_lost, self._guard, self.recheck_seconds
        )
        self._reader = PoolReader(server, self.keys)
        self.queue = FairTaskQueue(self.session, self._reader, server, pool)

    def watch(self, on_change: Callable[[], None]) -> None:
        """Register a function that is called when tasks, capacity or row groups may be new."""
        self._upkeep.watchers.append(on_change)

    # -- leases

    async def admit(
        self, slots: int, *, in_progress_seconds: float = 60.0, under_pressure: Iterable[str] = ()
    ) -> Admission:
        """Select, acquire and commit up to ``slots`` tasks in one script.

        Where fewer come, ``watch`` calls its function once there may be more.

        Args:
            slots: how many at most.
            in_progress_seconds: how long arq's in-progress mark lives.
            under_pressure: resources whose provider has no room now; their tasks come last.
        """
        asked = self.session.ask(Admit(slots, in_progress_seconds, tuple(under_pressure)))
        try:
            return self.take_admission(await asked)
        except asyncio.CancelledError:
            if asked.done() and not asked.cancelled() and asked.exception() is None:
                self._return_leases(asked.result())  # it came in the turn of the cancellation
            raise

    def finish(
        self, lease: TaskAdmissionLease, outcome: TaskOutcome
    ) -> asyncio.Future[ReleaseResult]:
        """End a lease: result, arq's keys, ledger and what became ready, in one script.

        Returns at once a future that never raises. With a lost lease nothing is written.
        """
        self._held.pop(lease.lease_id, None)
        ended = self.session.ask(End(lease.lease_id, outcome, lease))
        self.events.ended(lease, outcome, ended)
        return ended

    def return_unstarted(self, lease: TaskAdmissionLease) -> None:
        """Return a task to the queue before its code ran; no try is counted."""
        self.finish(lease, TaskDeferred(counts="nothing"))

    def is_held(self, lease: TaskAdmissionLease) -> bool:
        """Whether this process holds the lease, as far as it knows."""
        return lease.lease_id in self._held

    def take_admission(self, admitted: Admitted) -> Admission:
        """Return the tasks that an ask granted; this process holds their leases from now on."""
        if not self.session.is_lasting(admitted.membership):
            # It has ended meanwhile: what was granted goes back to the queue.
            return Admission(leases=(), blocked=None)
        seen, self._pushes_seen = self._pushes_seen, max([self._pushes_seen, *admitted.pushed])
        unseen = [lease for number, lease in admitted.pushed.items() if number > seen]
        leases = []
        for lease in [*unseen, *admitted.leases]:
            if isinstance(lease, Unreadable):  # another member may be able to
                self._guard.note("reading a task's lease", lease.error)
                self.session.submit(End(lease.lease_id, TaskDeferred(delay_seconds=UNREAD_SECONDS)))
            elif lease.lease_id not in self._restating.given_back:
                self._held[lease.lease_id] = lease
                leases.append(lease)
        self._writes_all_events = admitted.rest.writes_all_events
        self.events.admitted(leases, admitted.rest.blocked)
        return replace(admitted.rest, leases=tuple(leases))

    def note_in_progress_seconds(self, seconds: float) -> None:
        """Note how long arq's in-progress mark lives of a task that a rebuilt pool adopts."""
        self._restating.in_progress_seconds = seconds

    def watch_lost_jobs(self, on_job_lost: Callable[[str, str], None]) -> None:
        """Call a function with the id and the function of each job whose payload is gone.

        It is called again each interval until the job was ended (`FairTaskQueue.expire`).
        """
        self._upkeep.on_job_lost = on_job_lost

    def accept_pushes(self, start: Callable[[TaskAdmissionLease], None]) -> None:
        """Enable pushed tasks, which are given to `start`; each ask then sends `seen`."""
        self._start_pushed = start

    @property
    def seen(self) -> int | None:
        """Number of the last task that was pushed to this member; None if it takes none."""
        return None if self._start_pushed is None else self._pushes_seen

    def _take_pushed(self, number: int, terms: Sequence[str], payload: str | None) -> None:
        membership = self.session.membership
        if membership is None or self._start_pushed is None or number <= self._pushes_seen:
            return
        if not self.session.is_lasting(membership):
            return  # a notice that was held up on its way: another member may run the task
        if number > self._pushes_seen + 1:
            self._upkeep.change()  # an earlier one was lost: the next ask gets both
            return
        lease = decode_pushed(terms, payload, membership)
        self._pushes_seen = number
        if lease.lease_id in self._restating.given_back:
            return
        self._held[lease.lease_id] = lease
        self.events.admitted([lease], None)
        if not self._guard.call(self._start_pushed, lease):
            self.return_unstarted(lease)

    def on_unclaimed(self, operation: Operation[Any], reply: Reply) -> None:
        """Return granted tasks whose caller has gone to the queue."""
        if isinstance(operation, Admit):
            self._return_leases(operation.decode(reply))

    def _return_leases(self, admitted: Admitted) -> None:
        known = set(self._held)  # started, by an ask that raised later
        for lease in self.take_admission(admitted).leases:
            if lease.lease_id not in known:
                self.return_unstarted(lease)

    # -- looking

    async def view(self) -> TaskAdmissionView:
        """Return limits, ledger and debts of the pool; changes nothing."""
        return (await self._reader.snapshot()).admission

    async def explain_blocked(self) -> TaskAdmissionBlockSummary:
        """Explain why ready tasks are not admitted now: number, reasons, next change.

        Its diagnostics name the resources (``tasks_by_resource``) and say it in ``sentences``.
        """
        return summary(await read_facts(self._server, self.pool))

    async def ask(self, name: str, *args: str | int | bytes) -> list[Any]:
        """Run one operation of the pool and return its result; raises a `CoordinatorError`."""
        return await self.session.ask(Named(name, args))

    def emit(self, kind: SchedulerEventKind, lease: TaskAdmissionLease) -> None:
        """Emit an event of a task here; also report it to a pool that writes all events."""
        self.events.of_lease(kind, lease)
        if self._writes_all_events:
            self.session.submit(Report(kind, lease.item.task_id, lease.lease_id))

    async def close(self) -> None:
        """Leave the pool: tasks that still run go back to the queue."""
        try:
            await self.session.close()
        finally:  # after it, as its replies set the timer
            self._upkeep.close()

    # -- notices and callbacks of the shard

    def on_notices(self, generation: str, notices: Sequence[list[Any]]) -> None:
        """Apply notices: new work, a pushed task, an instant to recheck, a finished row group."""
        membership = self.session.membership
        is_of_now = membership is not None and generation == membership.generation
        has_changed = False
        for kind, *terms in notices:
            if kind == "task" and not is_of_now:
                has_changed = True  # the pool has begun anew since, and tells of this lease itself
            elif kind == "task":
                # The next ask gets again what could not be taken.
                has_changed |= not self._guard.call(self._take_pushed, *terms)
            elif kind == "due":
                has_changed |= not self._guard.call(self._upkeep.look_at, *terms)
            elif kind == "set":
                self._upkeep.sweep()
            elif kind == "lost":
                self._restating.lose(str(terms[0]))
            else:
                has_changed = True
        if has_changed:
            self._upkeep.change()

    def on_next_wake(self, seconds: float | None) -> None:
        """Recheck at the instant at which a timer of the pool may have changed something."""
        self._upkeep.wake_in(seconds)

    def on_joined(self, membership: Membership) -> Sequence[Submitted]:
        """Return the operations that state the functions of this process."""
        self._begin(membership)
        return [(Named("serve", self._functions), ignore_outcome)] if self._functions else []

    def on_forgotten(self, membership: Membership) -> Sequence[Submitted]:
        """Return the operations that state this process's settings, functions and leases."""
        self._begin(membership)
        return self._restating.state_all(self._upkeep.memory, self._functions)

    def _begin(self, membership: Membership) -> None:
        self._pushes_seen = 0
        self._loop.call_soon(self._guard.call, self._upkeep.change)
        self._upkeep.sweep_later(membership)

    def on_lost(self, _membership: Membership) -> None:
        """Report all leases as lost: their tasks have gone back to the queue."""
        self._restating.lose_all()

    def on_resumed(self) -> None:
        """Recheck the pool, as a wake-up may have been lost."""
        self._upkeep.change()
