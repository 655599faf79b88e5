"""``TaskAdmissionController``: one task pool of the fleet (spec 04)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from contracts.errors import ConfigurationError
from contracts.requests import ReleaseResult
from contracts.tasks import Admission, SchedulableTask, TaskAdmissionLease
from coordinator.channel import ShardChannel
from coordinator.joining import Server
from coordinator.keys import check_id, encode, pool_shard
from coordinator.membership import Membership
from coordinator.operations import Args, Operation, Question, Release, Result
from coordinator.scripts import script
from coordinator.tasks import codec

MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024


class _Admit(Question):
    """A question whose late answer holds leases that nobody waits for."""

    __slots__ = ("_give_back",)

    def __init__(
        self,
        args: Args,
        loop: asyncio.AbstractEventLoop,
        give_back: Callable[[Result, Membership | None], None],
    ) -> None:
        super().__init__(args, loop)
        self._give_back = give_back

    def late(self, result: Result) -> None:
        """Give back what was admitted."""
        self._give_back(result, self.sent_as)


class TaskAdmissionController:
    """Submits, admits and finishes tasks of one pool; belongs to one event loop.

    Args:
        server: the process's connection to the pool's server, which is outside cluster mode.
        pool: the pool's name.
        on_lease_lost: told of each lease that ended without being finished, so that its task's
            code can be stopped: another member is free to run it.
    """

    def __init__(
        self,
        server: Server,
        pool: str = "default",
        *,
        on_lease_lost: Callable[[TaskAdmissionLease], None] | None = None,
    ) -> None:
        self.keys = pool_shard(pool)
        self.changed = asyncio.Event()
        self.changed.set()  # the first look needs no reason
        self._held: dict[str, TaskAdmissionLease] = {}
        self._on_lease_lost = on_lease_lost or (lambda _lease: None)
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.TimerHandle | None = None
        self._recheck_seconds = server.settings.recheck_seconds
        self.channel = ShardChannel(server, self.keys, script("tasks/batch"), self)

    async def set_limit(self, resource: str, limit: int, *, holder: str = "pool") -> int:
        """Claim a limit for a resource; the smallest claim of all holders counts.

        Args:
            resource: ``submission``, ``local``, ``request:<provider>/<model>`` or the user's own.
            limit: units that may be out on leases at once, at least 1.
            holder: who claims, such as a run's id; claiming again replaces the holder's own.

        Returns:
            The limit now in force.
        """
        if limit < 1:
            raise ConfigurationError(
                f"the limit of resource {resource!r} is {limit}, expected at least 1."
            )
        return await self._claim(resource, holder, limit)

    async def drop_limit(self, resource: str, *, holder: str) -> int:
        """Take back a holder's claim; return the limit now in force, 0 for none."""
        return await self._claim(resource, holder, "")

    async def _claim(self, resource: str, holder: str, limit: int | str) -> int:
        name = codec.encode_resource(resource)
        result = await self.ask("claim", name, check_id("holder", holder), limit)
        return int(result[1])

    async def submit(self, task: SchedulableTask) -> bool:
        """Put a task into the fair queue, once.

        Returns:
            Whether it is new; False where its id is queued, running or has a result.

        Raises:
            TaskAdmissionError: its resources are unknown or above their limits.
            ConfigurationError: a wrong name, or a payload that is too large.
            CoordinatorError: the shared state could not be used.
        """
        if len(task.payload) > MAX_PAYLOAD_BYTES:
            raise ConfigurationError(
                f"the payload of task {task.task_id!r} has {len(task.payload)} bytes, the most is"
                f" {MAX_PAYLOAD_BYTES}; store it elsewhere and pass a reference."
            )
        result = await self._ask(codec.submit_args(task))
        return codec.check_accepted(result, f"task {task.task_id!r}")

    async def admit(self, slots: int, *, in_progress_seconds: float) -> Admission:
        """Select, acquire and commit up to ``slots`` tasks in one script.

        Where fewer come, this member is woken (``changed`` is set) once there may be more.
        """
        self.changed.clear()
        args = codec.operation("admit", slots, max(1, round(in_progress_seconds * 1000)))
        question = _Admit(args, self._loop, self._admitted_late)
        self.channel.submit(question)
        admission = self._admission(await question.future, question.sent_as)
        for lease in admission.leases:
            self._held[lease.lease_id] = lease
        return admission

    def _admission(self, result: Result, membership: Membership | None) -> Admission:
        if membership is None or membership is not self.channel.membership:
            # It has ended meanwhile: what was granted has gone back to the queue.
            return Admission(leases=(), blocked=None)
        return codec.decode_admission(result, membership.generation, membership.member_id)

    def _admitted_late(self, result: Result, membership: Membership | None) -> None:
        """The caller has given up: its tasks go back at once, as nobody runs them."""
        for lease in self._admission(result, membership).leases:
            self.retry(lease, give_back_try=False)

    def finish(
        self,
        lease: TaskAdmissionLease,
        *,
        result: bytes = b"",
        result_seconds: float | None = None,
        keep_in_progress_seconds: float | None = None,
        cells: Mapping[int, Mapping[str, str]] | None = None,
    ) -> asyncio.Future[ReleaseResult]:
        """End a lease for good: result, arq's keys, ledger and what became ready, in one script.

        Args:
            lease: the admission that ends; with a lost lease nothing is written.
            result: arq's serialised result, empty for none.
            result_seconds: how long it is kept; None for ever.
            keep_in_progress_seconds: how long arq's in-progress mark stays (cron jobs).
            cells: for a task of a run, the values it made as JSON text.

        Returns:
            At once, a future under way; it never raises.
        """
        return self._end(
            lease,
            codec.operation(
                "finish",
                lease.lease_id,
                result,
                "" if result_seconds is None else max(1, round(result_seconds * 1000)),
                ""
                if keep_in_progress_seconds is None
                else max(1, round(keep_in_progress_seconds * 1000)),
                *codec.cell_values(cells or {}),
            ),
        )

    def drop(self, lease: TaskAdmissionLease, reason: str) -> asyncio.Future[ReleaseResult]:
        """End a lease of a run's task that cannot succeed: its record is dropped with a reason."""
        return self._end(lease, codec.operation("drop", lease.lease_id, reason))

    def retry(
        self, lease: TaskAdmissionLease, *, delay_seconds: float = 0.0, give_back_try: bool = False
    ) -> asyncio.Future[ReleaseResult]:
        """End a lease and put its task back, available after ``delay_seconds``, in one step."""
        delay_us = round(max(0.0, delay_seconds) * 1e6)
        return self._end(
            lease, codec.operation("retry", lease.lease_id, delay_us, int(give_back_try))
        )

    def is_held(self, lease: TaskAdmissionLease) -> bool:
        """Whether the lease is this process's, as far as it knows."""
        return lease.lease_id in self._held

    async def discard(self, task_id: str) -> bool:
        """Drop a task that waits; False where it runs or is unknown."""
        return await self.ask("discard", encode(task_id)) == ["discarded"]

    async def ask(self, name: str, *args: str | int | bytes) -> Result:
        """Run one operation of the pool and return its result.

        Raises:
            CoordinatorError: the shared state could not be used.
        """
        return await self._ask(codec.operation(name, *args))

    async def close(self) -> None:
        """Leave the pool: tasks that still run go back to the queue."""
        if self._wake is not None:
            self._wake.cancel()
        await self.channel.close(codec.operation("leave"))

    def _ask(self, args: Args) -> asyncio.Future[Result]:
        return self.channel.ask(*args)

    def _end(self, lease: TaskAdmissionLease, args: Args) -> asyncio.Future[ReleaseResult]:
        self._held.pop(lease.lease_id, None)
        release = Release(args, self._loop)
        self.channel.submit(release)
        return release.future

    # -- what the shard tells

    def on_notices(self, generation: str, notices: Sequence[list[Any]]) -> None:  # noqa: ARG002
        """There is work, or a row group is through: look again."""
        if notices:
            self.changed.set()

    def on_next_wake(self, seconds: float | None) -> None:
        """Look again when time alone may have changed something, and each recheck interval."""
        if self._wake is not None:
            self._wake.cancel()
        pause = self._recheck_seconds
        if seconds is not None:
            pause = min(pause, max(0.001, seconds))
        self._wake = self._loop.call_later(pause, self.changed.set)

    def on_joined(self, membership: Membership) -> list[Operation]:  # noqa: ARG002
        """Nothing is registered with a pool; its limits outlive its members."""
        self.changed.set()
        return []

    def on_lost(self, membership: Membership) -> None:  # noqa: ARG002
        """Every task that runs here has gone back to the queue."""
        lost, self._held = self._held, {}
        for lease in lost.values():
            self._on_lease_lost(lease)

    def on_resumed(self) -> None:
        """A wake-up may have been lost: look."""
        self.changed.set()
