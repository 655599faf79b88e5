"""``CorrelatedRuntimeView``: both streams joined by task, and what held each task up.

Rules: design 07, *Two streams*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from forebay.contracts.events import RuntimeEvent
from forebay.contracts.identity import ProviderModelKey

INSTANTS: Final = (
    "dependency_ready",
    "ready_enqueued",
    "selected",
    "task_lease_acquired",
    "worker_spawned",
    "request_wait_started",
    "request_wait_completed",
    "request_lease_acquired",
    "model_request_started",
    "model_request_completed",
    "request_lease_released",
    "task_completed",
    "task_lease_released",
)
"""Names of the thirteen instants in the life of a task, in their order."""
CAUSES: Final = (
    "dependencies",
    "fairness",
    "task_capacity",
    "request_wait",
    "cooldown",
    "quota",
    "provider",
)
"""Causes for which a task can be delayed, by name."""

_FAIRNESS: Final = frozenset({"group_cap", "borrow_debt"})
Transition = Mapping[str, str]
"""An entry of a shard's stream ``events``, its fields by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTimeline:
    """One try of one task.

    Attributes:
        task_execution_id: which try.
        task_id: of the task; None where no event of the stream ``scheduler`` was given.
        run_id: of the task's run, if it has one.
        instants: server time in seconds by name, of `INSTANTS` those that are known; of several
            calls the first begin and the last end.
        held_up_seconds: seconds by cause, of `CAUSES` those that are above 0.
    """

    task_execution_id: str
    task_id: str | None
    run_id: str | None
    instants: Mapping[str, float]
    held_up_seconds: Mapping[str, float]

    @property
    def held_up_by(self) -> str | None:
        """The cause of the longest delay; None where nothing is known to have held it up."""
        return _largest(self.held_up_seconds)


@dataclass(slots=True)
class _Wait:
    began: float | None = None
    ended: float | None = None
    called: float | None = None
    answered: float | None = None
    resource: ProviderModelKey | None = None
    domain: str = ""


@dataclass(slots=True)
class _Task:
    task_id: str | None = None
    run_id: str | None = None
    row_group: int | None = None
    instants: dict[str, float] = field(default_factory=dict)
    calls: dict[str, _Wait] = field(default_factory=lambda: defaultdict(_Wait))


class CorrelatedRuntimeView:
    """Joins events of both streams by the try of a task that they belong to.

    Events without a correlation belong to no task and are counted.

    Args:
        events: of processes, in any order.
        of_pool: entries of the pool's stream: when row groups were admitted and, with
            ``events = "full"``, when tasks became ready.
        of_providers: entries of the streams of request shards, which say when a domain cooled down.

    Attributes:
        tasks: the timelines, by the id of the try.
        uncorrelated_count: events of attempts that belong to no task.
    """

    def __init__(
        self,
        events: Iterable[RuntimeEvent],
        *,
        of_pool: Iterable[Transition] = (),
        of_providers: Mapping[ProviderModelKey, Iterable[Transition]] | None = None,
    ) -> None:
        self.uncorrelated_count = 0
        self._blocked: list[tuple[float, str]] = []
        entries = list(of_pool)
        self._ready = _ready_instants(entries)
        self._admitted = _row_groups(entries)
        self._cooldowns = {
            key: _cooldowns(entries) for key, entries in (of_providers or {}).items()
        }
        found: dict[str, _Task] = defaultdict(_Task)
        for event in sorted(events, key=lambda event: (event.captured_at, event.ordinal)):
            self._take(event, found)
        self.tasks: Mapping[str, TaskTimeline] = {
            name: self._timeline(name, task) for name, task in found.items()
        }

    def held_up_seconds(self, run_id: str | None = None) -> dict[str, float]:
        """Return the seconds by cause, summed over the tasks of a run, or over all."""
        total: dict[str, float] = defaultdict(float)
        for task in self.tasks.values():
            if run_id is None or task.run_id == run_id:
                for cause, seconds in task.held_up_seconds.items():
                    total[cause] += seconds
        return dict(total)

    def held_up_by(self, run_id: str | None = None) -> str | None:
        """Return the cause that delayed a run, or all runs, longest; None without a delay."""
        return _largest(self.held_up_seconds(run_id))

    def _take(self, event: RuntimeEvent, found: dict[str, _Task]) -> None:
        if event.event_kind == "admission_blocked":
            self._blocked.append((event.captured_at, event.reason_or_outcome or ""))
        correlation = event.correlation
        execution = event.task_execution_id or (correlation and correlation.task_execution_id)
        if not execution:
            self.uncorrelated_count += event.request_attempt_id is not None
            return
        task = found[execution]
        task.task_id = event.task_id or task.task_id
        if correlation is not None:
            task.run_id = correlation.run_id or task.run_id
            task.row_group = (
                task.row_group if correlation.row_group is None else correlation.row_group
            )
        self._note_instant(event, task)
        if event.request_attempt_id is not None:
            _note_call(event, task.calls[event.request_attempt_id])

    def _note_instant(self, event: RuntimeEvent, task: _Task) -> None:
        name = event.event_kind
        if name in INSTANTS:
            is_end = name.endswith(("_completed", "_released"))
            if is_end or name not in task.instants:
                task.instants[name] = event.captured_at

    def _timeline(self, execution: str, task: _Task) -> TaskTimeline:
        instants = task.instants
        selected = instants.get("selected")
        ready: list[float] = []
        if task.task_id is not None and selected is not None:
            ready = [at for at in self._ready.get(task.task_id, ()) if at <= selected]
            if ready:
                instants |= {"dependency_ready": ready[0], "ready_enqueued": ready[-1]}
        seconds: dict[str, float] = defaultdict(float)
        if selected is not None and (enqueued := instants.get("ready_enqueued")) is not None:
            seconds[self._cause_between(enqueued, selected)] += selected - enqueued
        admitted = self._admitted.get((task.run_id, task.row_group))
        if admitted is not None and len(ready) == 1:  # later tries waited for no other cell
            seconds["dependencies"] += ready[0] - admitted
        for call in task.calls.values():
            self._add_call(call, seconds)
        return TaskTimeline(
            task_execution_id=execution,
            task_id=task.task_id,
            run_id=task.run_id,
            instants={name: instants[name] for name in INSTANTS if name in instants},
            held_up_seconds={cause: seconds[cause] for cause in CAUSES if seconds[cause] > 0},
        )

    def _cause_between(self, begin: float, end: float) -> str:
        """Return why a ready task was not selected: the reasons that asks were given meanwhile."""
        reasons = [reason for at, reason in self._blocked if begin <= at <= end]
        fair = sum(reason in _FAIRNESS for reason in reasons)
        return "fairness" if fair * 2 > len(reasons) else "task_capacity"

    def _add_call(self, call: _Wait, seconds: dict[str, float]) -> None:
        if call.called is not None and call.answered is not None:
            seconds["provider"] += call.answered - call.called
        if call.began is None or call.ended is None:
            return
        left, at = call.ended - call.began, call.began
        periods = () if call.resource is None else self._cooldowns.get(call.resource, ())
        for begin, end, domain, cause in periods:
            overlap = min(end, call.ended) - max(begin, at)
            if domain == call.domain and overlap > 0:
                seconds[cause] += overlap
                left, at = left - overlap, max(at, end)
        seconds["request_wait"] += left


def _note_call(event: RuntimeEvent, call: _Wait) -> None:
    if event.request_resource_key is not None:
        call.resource = event.request_resource_key.provider_model
        call.domain = event.request_resource_key.domain.value
    match event.event_kind:
        case "request_wait_started":
            call.began = event.captured_at
        case "request_wait_completed" | "request_wait_timeout" | "request_wait_cancelled":
            call.ended = event.captured_at
        case "model_request_started":
            call.called = event.captured_at
        case "model_request_completed":
            call.answered = event.captured_at
        case _:
            pass


def _ready_instants(entries: Iterable[Transition]) -> dict[str, list[float]]:
    """Return when each task became ready; a task of a run in the script that made it so."""
    found: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        if entry["kind"] == "ready_enqueued":
            found[entry["task_id"]].append(int(entry["at_us"]) / 1e6)
    return {task_id: sorted(instants) for task_id, instants in found.items()}


def _row_groups(entries: Iterable[Transition]) -> dict[tuple[str | None, int | None], float]:
    """Return when each row group was admitted: its tasks wait for their inputs alone since."""
    return {
        (entry["run_id"], int(entry["row_group"])): int(entry["at_us"]) / 1e6
        for entry in entries
        if entry["kind"] == "row_group_admitted"
    }


def _cooldowns(entries: Iterable[Transition]) -> list[tuple[float, float, str, str]]:
    """Return begin, end, domain and cause of each cooldown, by begin."""
    return sorted(
        (
            int(entry["at_us"]) / 1e6,
            int(entry["blocked_until_us"]) / 1e6,
            entry["domain"],
            "quota" if entry.get("scope") == "quota" else "cooldown",
        )
        for entry in entries
        if entry["kind"] == "request_rate_limited"
    )


def _largest(seconds: Mapping[str, float]) -> str | None:
    return max(seconds, key=lambda cause: seconds[cause], default=None)
