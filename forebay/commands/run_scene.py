"""A snapshot of a run for people: records, windows, pool, and the present limit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from forebay.contracts.identity import RequestResourceKey
from forebay.contracts.run_use import ModelUse, sum_by_model
from forebay.contracts.runs import RunSpec
from forebay.contracts.snapshots import DomainSnapshot
from forebay.contracts.tasks import TaskDenialReason
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.runs.looking import RunLook, RunReader
from forebay.coordinator.runs.plan import CELL_FUNCTION
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import PoolReader, PoolSnapshot, count_serving

_OF_FAIRNESS: Final = frozenset(
    {TaskDenialReason.GROUP_CAP, TaskDenialReason.BORROW_DEBT, TaskDenialReason.RESERVED}
)
RATE_SECONDS: Final = 30.0
"""Span of the mean rate: long enough for a row group, short enough for a change."""
_FEW_MINUTES: Final = 121


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScene:
    """A run at one instant, with the windows and the pool that it uses.

    Attributes:
        look: the run itself.
        windows: of its models, by ``provider/model``: of each the domain that is used most.
        pool: the task pool.
        workers: members that make cells.
    """

    look: RunLook
    windows: Mapping[str, DomainSnapshot]
    pool: PoolSnapshot
    workers: int

    @property
    def models(self) -> Mapping[str, ModelUse]:
        """Calls and tokens of the run, by model."""
        return sum_by_model(self.look.columns)


class SceneReader:
    """Reads scenes of one run; changes nothing.

    Args:
        connection: connection to the run's server; left open.
        spec: the run.
        pool: name of the task pool.
    """

    def __init__(self, connection: ServerConnection, spec: RunSpec, pool: str) -> None:
        self._connection = connection
        self._spec = spec
        self._pool_name = pool
        self._runs = RunReader(connection, pool)
        self._pool = PoolReader(connection, pool_shard(pool))
        self._pressure = RequestPressureSnapshotProvider(connection)
        self._resources = resources_of(spec)

    async def read(self) -> RunScene | None:
        """Return the run at this instant; None where it is over.

        Raises:
            CoordinatorError: the server could not be used.
        """
        look = await self._runs.look(self._spec)
        if look is None:
            return None
        windows = {}
        for name, resource in self._resources.items():
            shard = await self._pressure.global_snapshot(resource.provider_model, max_rows=10)
            windows[name] = max(
                shard.domains.values(),
                key=lambda one: (one.waiters, one.in_flight_count, one.is_used),
            )
        return RunScene(
            look=look,
            windows=windows,
            pool=await self._pool.snapshot(),
            workers=await count_serving(self._connection, self._pool_name, CELL_FUNCTION),
        )


def resources_of(spec: RunSpec) -> dict[str, RequestResourceKey]:
    """Return the windows of a run's models, by ``provider/model``."""
    resolver = RequestResourceResolver()
    resources = [resolver.resolve(one.provider, one.model) for one in spec.workflow.models.values()]
    return {str(resource.provider_model): resource for resource in resources}


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit that holds a run up.

    Attributes:
        kind: in one or two words.
        words: with numbers and names, to stand behind the kind.
    """

    kind: str
    words: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}" if self.words else self.kind


def limits_now(scene: RunScene) -> Limit:
    """Return the present limit of a run: the first that applies, in a fixed order.

    No worker, a cooldown or quota, the queue of a window, the share of other tenants in it, a limit
    or share of the pool, slots of workers, the provider, the driver, dependencies.
    """
    look, pool = scene.look, scene.pool
    if look.problem is not None:
        return Limit("stopped", look.problem)
    if not scene.workers:
        return Limit("no worker", "the pool has none that makes cells")
    if pool.state == "paused":
        return Limit("paused pool", "forebay open lets it go on")
    found = _closed_window(scene) or _request_wait(scene) or _task_wait(scene) or _provider(scene)
    if found is None and look.unwritten:
        return Limit("driver", f"{_waiting(look.unwritten, 'finished row group')} to be written")
    return found or Limit("dependencies", "no cell is ready before another is made")


def _closed_window(scene: RunScene) -> Limit | None:
    closed = {
        name: window
        for name, window in scene.windows.items()
        if window.cooldown_remaining_seconds > 0
    }
    if not closed or len(closed) < len(scene.windows):
        return None
    name, window = min(closed.items(), key=lambda one: one[1].cooldown_remaining_seconds)
    seconds = f"{window.cooldown_remaining_seconds:.0f} s more"
    if window.blocked_for is not None:
        return Limit("quota", f"{window.blocked_for} of {name} used up, {seconds}")
    return Limit("cooldown", f"{name} takes no call, {seconds}")


def _request_wait(scene: RunScene) -> Limit | None:
    waiting = [(name, window) for name, window in scene.windows.items() if window.waiters]
    if not waiting:
        return None
    name, window = max(waiting, key=lambda one: one[1].waiters)
    tenant = scene.look.spec.tenant
    others = [group.group for group in window.waiting_groups if group.group != tenant]
    used = f"{window.in_flight_count}/{window.current_limit} of {name} in use"
    if others:
        return Limit("fairness", f"{used}, {_waiting(len(others), 'other tenant')} for it too")
    calls = _waiting(window.waiters, "call")
    if window.in_flight_count < window.current_limit:
        return Limit("quota", f"{calls} for the budget of {name}")
    return Limit("request wait", f"{used}, {calls}")


def _waiting(count: int, noun: str) -> str:
    """Return how many wait: ``1 call waits``, ``2 calls wait``."""
    return f"{_number(count, noun)} wait{'s' if count == 1 else ''}"


def _number(count: int, noun: str) -> str:
    """Return a number and what it counts: ``1 call``, ``2 calls``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _task_wait(scene: RunScene) -> Limit | None:
    queue, blocked = scene.pool.queue, scene.pool.blocked
    if not queue.queued_total:
        return None
    tasks = _waiting(queue.queued_total, "task")
    full = [
        resource
        for amounts in queue.first_candidates.values()
        for resource in amounts
        if not scene.pool.admission.available.get(resource, 1)
    ]
    if full:
        limit = scene.pool.admission.limits.get(full[0], 0)
        if full[0].startswith("request:"):
            name = full[0].removeprefix("request:")
            return Limit("request wait", f"the cap {limit} of {name} is reached, {tasks}")
        return Limit("slots", f"all {limit} of {full[0]} are taken, {tasks}")
    shares = [reason for reason in blocked.reasons if reason in _OF_FAIRNESS]
    if shares:
        return Limit("fairness", f"{shares[0].value.replace('_', ' ')}, {tasks} for others")
    return Limit("slots", f"{tasks} for a free slot of {_number(scene.workers, 'worker')}")


def _provider(scene: RunScene) -> Limit | None:
    busy = [(name, window) for name, window in scene.windows.items() if window.in_flight_count]
    if not busy:
        return None
    name, window = max(busy, key=lambda one: one[1].in_flight_count)
    return Limit("provider", f"{_number(window.in_flight_count, 'call')} of {name} under way")


class Pace:
    """The rate and the remaining time of a run.

    Args:
        records: of the run.
    """

    def __init__(self, records: int) -> None:
        self._records = records
        self._started = time.monotonic()
        self._noted: deque[tuple[float, int]] = deque()

    def note(self, done: int) -> None:
        """Note how many records are written or dropped by now."""
        now = time.monotonic()
        if self._noted and self._noted[0][1] == done:  # nothing yet: the rate begins with the first
            self._noted.clear()
        self._noted.append((now, done))
        while now - self._noted[0][0] > RATE_SECONDS and len(self._noted) > 2:  # noqa: PLR2004
            self._noted.popleft()

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since this process first read the run."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Records a second over the last ``RATE_SECONDS``; 0 before there are two looks."""
        if len(self._noted) < 2:  # noqa: PLR2004
            return 0.0
        (since, before), (now, done) = self._noted[0], self._noted[-1]
        return (done - before) / (now - since) if now > since else 0.0

    @property
    def left(self) -> str:
        """The time left, in words."""
        if self.rate <= 0:
            return "time left not known"
        return f"{duration((self._records - self._noted[-1][1]) / self.rate)} left"


def duration(seconds: float) -> str:
    """Return a length of time as people say it: ``45 s``, ``12 min``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < _FEW_MINUTES:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 120:  # noqa: PLR2004
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
