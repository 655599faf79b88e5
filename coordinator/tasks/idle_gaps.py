"""``ready_idle_gap``: how long a member had a free slot beside ready work that fits.

Rules: design 04; design 08.

Worked out of the events of a pool that writes all of them (``events="full"``) under the strict
policy, by which a task that fits is denied only for another that fits. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from statistics import quantiles
from typing import Final

from forebay.contracts.tasks import Amounts

LOST_TOO: Final = frozenset({"member_lost", "not_listening"})
_US: Final = 1e6


class IdleGaps:
    """Follows a pool's events, and notes each time in which a member was idle beside work.

    A gap of a member begins where it is alive, has a free slot and some ready task fits what is
    left of the limits, and ends where one of these ends; so the round trip of the ask that ends it
    is in it. Tasks that were lost with a member are no such work, as a member runs one of them at a
    time, nor are those of runs that wait for a cooldown.

    Args:
        slots: how many tasks a member runs at once, by its id; 0 where it is no worker.

    Attributes:
        seconds: the gaps that are over, in order of their ends.
    """

    def __init__(self, slots: Callable[[str], int]) -> None:
        self.seconds: list[float] = []
        self._slots = slots
        self._now_us = 0
        self._since_us: dict[str, int] = {}  # the gaps that are open, by member
        self._free: dict[str, int] = {}  # slots of members that live and are listened to
        self._silent: dict[str, int] = {}  # the same, of suspects
        self._ready: dict[str, str] = {}  # task -> what it asks for
        self._waiting: Counter[str] = Counter()  # ready tasks by what they ask for
        self._asks: dict[str, str] = {}  # of every task that is ready or runs
        self._running: dict[str, tuple[str, str]] = {}  # lease -> task, member
        self._lost: set[str] = set()
        self._limits: dict[str, int] = {}
        self._used: Counter[str] = Counter()
        self._cooling_until_us: dict[str, int] = {}
        self._is_open = True

    def note(self, event: Mapping[str, str]) -> None:
        """Take the next event, in the stream's order."""
        at_us = int(event["at_us"])
        if at_us > self._now_us:  # a call's events are of one instant: what counts is its end
            self._look_until(at_us)
        take = getattr(self, f"_on_{event['kind']}", None)
        if take is not None:
            take(event)

    def close(self) -> None:
        """Look at the instant of the last event as well."""
        self._look(self._now_us)

    # -- gaps

    def _look_until(self, at_us: int) -> None:
        self._look(self._now_us)
        for over_us in sorted(self._cooling_until_us.values()):
            if self._now_us < over_us < at_us:
                self._now_us = over_us
                self._look(over_us)
        self._now_us = at_us

    def _look(self, at_us: int) -> None:
        """Begin and end gaps by the state at an instant."""
        has_work = self._has_work()
        for member in [*self._since_us]:
            if not has_work or self._free.get(member, 0) <= 0:
                gap_us = at_us - self._since_us.pop(member)
                if gap_us > 0:
                    self.seconds.append(gap_us / _US)
        if has_work:
            for member, free in self._free.items():
                if free > 0:
                    self._since_us.setdefault(member, at_us)

    def _has_work(self) -> bool:
        return self._is_open and any(self._fits(asks) for asks in self._waiting)

    def _fits(self, asks: str) -> bool:
        return all(
            self._used[resource] + amount <= self._limits.get(resource, amount)
            and self._cooling_until_us.get(resource, 0) <= self._now_us
            for resource, amount in _amounts(asks).items()
        )

    # -- events

    def _on_member_joined(self, event: Mapping[str, str]) -> None:
        if slots := self._slots(event["member_id"]):
            self._free[event["member_id"]] = slots

    def _on_member_suspected(self, event: Mapping[str, str]) -> None:
        member = event["member_id"]
        if member in self._free:
            self._silent[member] = self._free.pop(member)

    def _on_member_expired(self, event: Mapping[str, str]) -> None:
        self._free.pop(event["member_id"], None)
        self._silent.pop(event["member_id"], None)

    def _on_ready_enqueued(self, event: Mapping[str, str]) -> None:
        task = event["task_id"]
        self._asks[task] = event["asks"]
        if task not in self._lost and task not in self._ready:
            self._ready[task] = event["asks"]
            self._waiting[event["asks"]] += 1

    def _on_task_lease_acquired(self, event: Mapping[str, str]) -> None:
        task, member = event["task_id"], event["member_id"]
        self._not_ready(task)
        self._running[event["lease_id"]] = (task, member)
        self._used.update(_amounts(self._asks.get(task, "")))
        if member in self._silent:
            self._free[member] = self._silent.pop(member)  # its own call cleared it
        if member in self._free:
            self._free[member] -= 1

    def _on_task_lease_released(self, event: Mapping[str, str]) -> None:
        if event["outcome"] == "completed":
            for resource in _amounts(self._asks.get(event["task_id"], "")):
                self._cooling_until_us.pop(resource, None)
        self._lost.discard(event["task_id"])
        self._end_lease(event)
        self._asks.pop(event["task_id"], None)

    def _on_retry_deferred(self, event: Mapping[str, str]) -> None:
        self._lost.discard(event["task_id"])
        self._end_lease(event)

    def _on_task_lease_expired(self, event: Mapping[str, str]) -> None:
        if event["reason"] in LOST_TOO:
            self._lost.add(event["task_id"])
        self._end_lease(event)

    def _end_lease(self, event: Mapping[str, str]) -> None:
        task, member = self._running.pop(event["lease_id"], ("", ""))
        self._used.subtract(_amounts(self._asks.get(task, "")))
        for slots in (self._free, self._silent):
            if member in slots:
                slots[member] += 1

    def _on_cancelled(self, event: Mapping[str, str]) -> None:
        if "task_id" in event:
            self._not_ready(event["task_id"])
        else:
            self._drop(lambda task: task.startswith(f"{event['run_id']}:"))

    def _on_non_retryable_dropped(self, event: Mapping[str, str]) -> None:
        if "task_id" in event:
            self._not_ready(event["task_id"])
        else:
            begins, ends = f"{event['run_id']}:", f":r{event['record']}"
            self._drop(lambda task: task.startswith(begins) and task.endswith(ends))

    def _on_admission_denied(self, event: Mapping[str, str]) -> None:
        self._not_ready(event["task_id"])  # it asks for more than a limit

    def _drop(self, is_meant: Callable[[str], bool]) -> None:
        for task in [task for task in self._ready if is_meant(task)]:
            self._not_ready(task)

    def _not_ready(self, task: str) -> None:
        asks = self._ready.pop(task, None)
        if asks is not None:
            self._waiting[asks] -= 1
            if not self._waiting[asks]:
                del self._waiting[asks]

    def _on_resource_limit_changed(self, event: Mapping[str, str]) -> None:
        self._limits[event["resource"]] = int(event["to"])

    def _on_resource_cooling(self, event: Mapping[str, str]) -> None:
        self._cooling_until_us[event["resource"]] = int(event["until_us"])

    def _on_pool_state_changed(self, event: Mapping[str, str]) -> None:
        self._is_open = event["to"] != "paused"


def _amounts(asks: str) -> Amounts:
    """Return units by resource from an event's text ``resource=units,...``."""
    parts = (part.rpartition("=") for part in asks.split(",") if part)
    return {resource: int(units) for resource, _, units in parts}


def p99(seconds: Iterable[float]) -> float:
    """Return the 99th percentile; 0 of nothing."""
    values = sorted(seconds)
    if len(values) < 2:  # noqa: PLR2004 - quantiles takes two or more
        return values[0] if values else 0.0
    return quantiles(values, n=100, method="inclusive")[-1]
