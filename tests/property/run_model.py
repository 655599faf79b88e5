"""A reference model of one run, from the words of design 05; shares nothing with the scripts.

Time stands still but for `pass_time`. Capacity never binds: what is held back is held back by a
cooldown or a delay alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ROOT = "seed"
NEEDS = {
    "a": ("seed",),
    "b": ("seed",),
    "last": ("a", "b"),
    "solo": ("seed",),
    "whole": ("a",),
    "judge": ("whole", "b"),
    "condition": ("seed",),
    "maybe": ("seed", "condition"),
    "after": ("maybe",),
    "in_any_case": ("maybe",),
}
BATCHES = frozenset({ROOT, "whole"})
"""Columns of which one task makes the cells of a whole row group."""
SKIPS = {"maybe": "condition"}
"""Which column is skipped where which condition holds."""
KEEPS = frozenset({"in_any_case"})
"""Columns that are made though a column that they need was skipped."""
ASKS = {"a": "request:p/m", "b": "request:p/other"}
"""Which column asks for which provider; the others ask for none."""
WINDOW, RATE = 20, 0.5
SALVAGE_US = 60_000_000

Task = tuple[str, int]
"""A column and a number: of a record, of the root a row group."""


@dataclass
class RunModel:
    """One run, and what its driver and its workers have done.

    Attributes:
        made: cells that are there, by record.
        dropped: records that were given up.
        tasks: tasks that exist, each with the instant from which it may go.
        salvage: by row group, tasks that wait for its next round, each with its backoff's end.
        windows: by column, finished and failed cells of this half of its window and the one before.
        leased: tasks that run.
        admitted: row groups that were ever admitted; they are admitted in order.
        written: row groups that are on disk.
    """

    records: int
    buffer_size: int
    max_open: int
    max_rows: int
    columns: tuple[str, ...]
    is_additive: bool = False
    target: int = 1
    skipped: set[tuple[str, int]] = field(default_factory=set)
    now: int = 0
    is_attended: bool = True
    made: dict[int, set[str]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    tasks: dict[Task, int] = field(default_factory=dict)
    leased: set[Task] = field(default_factory=set)
    cooling: dict[str, tuple[int, int]] = field(default_factory=dict)
    dropped_by: dict[int, str] = field(default_factory=dict)
    windows: dict[str, list[int]] = field(default_factory=dict)
    salvage: dict[int, dict[Task, int]] = field(default_factory=dict)
    stopped: str | None = None
    admitted: int = 0
    written: set[int] = field(default_factory=set)

    # -- what there is

    @property
    def row_groups(self) -> int:
        return -(-self.records // self.buffer_size)

    def records_of(self, row_group: int) -> range:
        first = row_group * self.buffer_size
        return range(first, min(self.records, first + self.buffer_size))

    def row_group_of(self, task: Task) -> int:
        column, number = task
        return number if column in BATCHES else number // self.buffer_size

    def holds(self, record: int) -> bool:
        """Whether the condition of a record holds."""
        return record % 3 == 0

    def is_over(self, record: int) -> bool:
        return record in self.dropped or self.made.get(record) == {ROOT, *self.columns}

    def is_through(self, row_group: int) -> bool:
        return all(self.is_over(record) for record in self.records_of(row_group))

    def open_row_groups(self) -> list[int]:
        return [one for one in range(self.admitted) if not self.is_through(one)]

    def unwritten(self) -> list[int]:
        through = [one for one in range(self.admitted) if self.is_through(one)]
        return [one for one in through if one not in self.written]

    def cools(self, column: str) -> bool:
        until, _times = self.cooling.get(ASKS.get(column, ""), (0, 0))
        return until > self.now

    def admissible(self) -> set[Task]:
        """Tasks that may go now: nothing that cools is given to a worker."""
        return {
            task
            for task, due in self.tasks.items()
            if task not in self.leased and due <= self.now and not self.cools(task[0])
        }

    def progress(self) -> list[object]:
        done = sum(
            record not in self.dropped and self.is_over(record) for record in range(self.records)
        )
        return [
            done,
            len(self.dropped),
            len(self.open_row_groups()),
            len(self.written),
            self.unwritten()[:16],
            sorted(
                [resource, until, times]
                for resource, (until, times) in self.cooling.items()
                if until > self.now
            ),
            [],
            self._stop_told(),
        ]

    def _stop_told(self) -> list[object] | None:
        """The column, and how many tasks of open row groups still run."""
        if self.stopped is None:
            return None
        is_open = set(self.open_row_groups())
        return [self.stopped, sum(self.row_group_of(task) in is_open for task in self.tasks)]

    # -- what happens

    def admit_row_groups(self) -> None:
        while self.is_attended and self.stopped is None and self._has_room():
            if self.admitted == self.row_groups:
                return
            self.tasks[ROOT, self.admitted] = self.now
            self.admitted += 1

    def _has_room(self) -> bool:
        open_now, unwritten = self.open_row_groups(), len(self.unwritten())
        held = len(open_now) + unwritten
        if held and (held + 1) * self.buffer_size > self.max_rows:
            return False
        target = self.target if self.is_additive else self.max_open
        if len(open_now) < target and held <= target:
            return True
        if not open_now or not self._next_has_work():
            return False
        busy = sum(not self._waits(one) for one in open_now)
        return busy < target and busy + unwritten <= target

    def extend(self) -> None:
        """A worker with a free slot found nothing ready: an additive horizon grows by one."""
        if not self.is_additive or self.target >= self.max_open or not self.is_attended:
            return
        if self.stopped is not None or self.admitted == self.row_groups:
            return
        if any(due <= self.now for task, due in self.tasks.items() if task not in self.leased):
            return
        held = len(self.open_row_groups()) + len(self.unwritten())
        if self._has_room() or (held and (held + 1) * self.buffer_size > self.max_rows):
            return
        if len(self.open_row_groups()) < self.target:
            return  # what holds it back is its driver, which does not write
        self.target += 1
        self.admit_row_groups()

    def _waits(self, row_group: int) -> bool:
        """Whether all cells of a row group that are left wait for a provider that cools down."""
        tasks = [task for task in self.tasks if self.row_group_of(task) == row_group]
        return bool(tasks) and all(self.cools(column) for column, _number in tasks)

    def _next_has_work(self) -> bool:
        """Whether a new row group has cells that none of what cools is needed for."""
        if not any(map(self.cools, self.columns)):
            return False
        makeable = {ROOT}
        for column in self.columns:  # each stands behind what it needs
            if not self.cools(column) and makeable.issuperset(NEEDS[column]):
                makeable.add(column)
        return makeable > {ROOT}

    def admit(self, tasks: set[Task]) -> None:
        assert tasks <= self.admissible()
        self.leased |= tasks

    def finish(self, task: Task) -> None:
        column, number = task
        self._end(task)
        self.cooling.pop(ASKS.get(column, ""), None)
        group = self.row_group_of(task)
        records = list(self.records_of(group)) if column in BATCHES else [number]
        records = [record for record in records if not self.is_over(record)]
        if column in BATCHES:
            records = [one for one in records if column not in self.made.get(one, set())]
        self._count(column, len(records), is_failed=False)
        for record in records:
            self._make(record, column)
        self._settle()

    def _count(self, column: str, cells: int, *, is_failed: bool) -> bool:
        """Count finished cells; return whether too many of them failed."""
        window = self.windows.setdefault(column, [0, 0, 0, 0])
        window[0] += cells
        window[1] += cells if is_failed else 0
        finished, failed = window[0] + window[2], window[1] + window[3]
        if window[0] >= WINDOW:
            window[:] = [0, 0, window[0], window[1]]
        return finished >= WINDOW and failed / finished > RATE

    def _settle(self) -> None:
        """Begin the salvage rounds whose time has come, and admit row groups."""
        self.admit_row_groups()
        for row_group, waiting in list(self.salvage.items()):
            if row_group not in self.open_row_groups():
                del self.salvage[row_group]
                continue
            there = sum(self.row_group_of(task) == row_group for task in self.tasks)
            if len(waiting) >= there:
                del self.salvage[row_group]
                for task, available in waiting.items():
                    if task not in self.leased and self.tasks.get(task, 0) > self.now:
                        self.tasks[task] = max(self.now, available)

    def fail(self, task: Task, backoff_us: int) -> None:
        """A try failed, and another may end better."""
        self.leased.discard(task)
        column, number = task
        is_over = self.is_through(number) if column in BATCHES else self.is_over(number)
        if is_over or self.stopped is not None:
            self.tasks.pop(task)
        else:
            self.tasks[task] = self.now + backoff_us + SALVAGE_US
            waiting = self.salvage.setdefault(self.row_group_of(task), {})
            waiting[task] = self.now + backoff_us
        self._settle()

    def _stop(self, column: str) -> None:
        self.stopped = column
        self.salvage.clear()
        self.tasks = {task: due for task, due in self.tasks.items() if task in self.leased}

    def resume(self) -> None:
        """Go on after a stop, with what the failing column dropped in open row groups."""
        column, self.stopped, self.windows = self.stopped, None, {}
        if column is not None:
            for row_group in self.open_row_groups():
                for record in self.records_of(row_group):
                    if self.dropped_by.get(record) == column:
                        del self.dropped_by[record]
                        self.dropped.discard(record)
                self._submit_frontier(row_group)
        self.is_attended = True
        self._settle()

    def _submit_frontier(self, row_group: int) -> None:
        left = [one for one in self.records_of(row_group) if not self.is_over(one)]
        for column in (ROOT, *self.columns):
            needs = NEEDS.get(column, ())
            missing = [one for one in left if column not in self.made.get(one, set())]
            ready = [one for one in missing if self.made.get(one, set()).issuperset(needs)]
            if column in BATCHES:
                if missing and len(ready) == len(missing):
                    self.tasks.setdefault((column, row_group), self.now)
            else:
                for record in ready:
                    self.tasks.setdefault((column, record), self.now)

    def _make(self, record: int, column: str) -> None:
        made = self.made.setdefault(record, set())
        made.add(column)
        for other in self.columns:
            if column not in NEEDS[other] or not made.issuperset(NEEDS[other]):
                continue
            if self.stopped is not None and (
                other in BATCHES or not self._is_skipped(other, record)
            ):
                continue
            if other in BATCHES:
                self._reach_batch(other, record // self.buffer_size)
            elif self._is_skipped(other, record):
                self.skipped.add((other, record))
                self._make(record, other)
            else:
                self.tasks[other, record] = self.now

    def _is_skipped(self, column: str, record: int) -> bool:
        if SKIPS.get(column) in self.columns and self.holds(record):
            return True
        inherits = column not in KEEPS
        return inherits and any((name, record) in self.skipped for name in NEEDS[column])

    def _reach_batch(self, column: str, row_group: int) -> None:
        """Let a batch begin once no open record of its row group misses an input."""
        if self.stopped is not None:
            return
        left = [one for one in self.records_of(row_group) if one not in self.dropped]
        is_made = all(column in self.made.get(one, set()) for one in left)
        is_ready = all(self.made.get(one, set()).issuperset(NEEDS[column]) for one in left)
        if left and is_ready and not is_made and (column, row_group) not in self.tasks:
            self.tasks[column, row_group] = self.now

    def drop(self, task: Task) -> None:
        column, number = task
        self._end(task)
        records = self.records_of(number) if column in BATCHES else [number]
        fallen = [record for record in records if not self.is_over(record)]
        if column in BATCHES:
            fallen = [one for one in fallen if column not in self.made.get(one, set())]
        if self.stopped is None and self._count(column, len(fallen), is_failed=True):
            self._stop(column)
        if self.stopped is not None:
            self._settle()
            return
        for record in fallen:
            self.dropped.add(record)
            self.dropped_by[record] = column
            for other in self.columns:
                if other not in BATCHES and (other, record) not in self.leased:
                    self.tasks.pop((other, record), None)
        self._close_batches({record // self.buffer_size for record in fallen})
        self._settle()

    def _close_batches(self, row_groups: set[int]) -> None:
        """Begin batches that waited for dropped records alone; end those that nobody wants."""
        for row_group in row_groups:
            for other in BATCHES.intersection(self.columns):
                if not self.is_through(row_group):
                    self._reach_batch(other, row_group)
                elif (other, row_group) not in self.leased:
                    self.tasks.pop((other, row_group), None)

    def defer(self, task: Task, seconds_us: int, *, is_cooling: bool) -> None:
        """Put a task back: for its provider's cooldown, or by itself."""
        self.leased.discard(task)
        column, number = task
        is_wanted = not self.is_over(number)
        if column in BATCHES:
            is_wanted = not self.is_through(number)
        is_wanted = is_wanted and self.stopped is None
        due = self.now + seconds_us
        if is_cooling:
            until, times = self.cooling.get(ASKS[column], (0, 0))
            is_new = until <= self.now
            self.cooling[ASKS[column]] = (max(until, due), times + is_new)
            due = self.now
        if is_wanted:
            self.tasks[task] = due
        else:
            self.tasks.pop(task, None)
        self._settle()

    def _end(self, task: Task) -> None:
        self.leased.discard(task)
        self.tasks.pop(task, None)

    def write(self, row_group: int) -> None:
        self.written.add(row_group)
        self.admit_row_groups()
