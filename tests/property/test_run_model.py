"""Random histories of a run against the reference model, on fakeredis (design 05)."""

from __future__ import annotations

import json

import fakeredis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.contract.pool_under_clock import MODEL, ONE, OTHER, Pool, task_of
from tests.contract.run_plans import column
from tests.contract.shard_under_clock import SECOND_US, START_US
from tests.property.modes import LONG, SETTINGS
from tests.property.run_model import ASKS, BATCHES, KEEPS, NEEDS, ROOT, SKIPS, RunModel, Task

LIFE_US = 10_000 * 3600 * SECOND_US
SIGNATURES = {"a": MODEL, "b": OTHER}


def plan_of(model: RunModel) -> str:
    """The plan of the model's run, as a pool is given it."""
    names = (ROOT, *model.columns)
    columns = [
        column(
            name,
            "g" if name in BATCHES else "r",
            list(NEEDS.get(name, ())),
            [place for place, other in enumerate(names, 1) if name in NEEDS.get(other, ())],
            SIGNATURES.get(name, ONE),
        )
        | {"fn": "forebay_cell", "keeps": name in KEEPS}
        | ({"skip": SKIPS[name]} if SKIPS.get(name) in names else {})
        for name in names
    ]
    return json.dumps(
        {
            "records": model.records,
            "buffer_size": model.buffer_size,
            "max_open": model.max_open,
            "max_rows": model.max_rows,
            "admission": "additive" if model.is_additive else "fixed",
            "skips": True,
            "row_groups": model.row_groups,
            "limits": {},
            "columns": columns,
        }
    )


def model_task(lease: str) -> Task:
    _run, name, place = task_of(lease).split(":")
    return name, int(place[1:])


class RunMachine(RuleBasedStateMachine):
    """A worker and a driver carry one run on; the model is told the same."""

    @initialize(
        sizes=st.tuples(st.integers(1, 30), st.integers(1, 6), st.integers(1, 3)),
        max_rows=st.sampled_from([1, 8, 1000]),
        columns=st.sampled_from(
            [
                ("a", "b", "last"),
                ("a",),
                ("a", "b"),
                ("a", "b", "last", "solo"),
                ("a", "whole"),
                ("a", "b", "whole", "judge"),
                ("condition", "maybe", "after", "in_any_case"),
            ]
        ),
        is_additive=st.booleans(),
    )
    def begin(
        self,
        sizes: tuple[int, int, int],
        max_rows: int,
        columns: tuple[str, ...],
        is_additive: bool,
    ) -> None:
        self.pool = Pool(fakeredis.FakeRedis())
        self.pool.open("m", "d", **{"submission": 900, "request:p/m": 900, "request:p/other": 900})
        self.pool.beat("m", LIFE_US)
        self.pool.beat("d", LIFE_US)
        self.pool.ask("m", "serve", "forebay_cell")
        records, buffer_size, max_open = sizes
        self.model = RunModel(
            records=records,
            buffer_size=buffer_size,
            max_open=max_open,
            max_rows=max_rows,
            columns=columns,
            is_additive=is_additive,
            now=START_US,
        )
        self.leases: dict[Task, str] = {}
        assert self.pool.ask("d", "run_submit", "run", plan_of(self.model), "{}") == ["accepted"]
        self.model.admit_row_groups()

    @rule(slots=st.sampled_from([1, 3]))
    def admit_some(self, slots: int) -> None:
        self.admit(slots)

    def admit(self, slots: int) -> None:
        given = {model_task(lease): lease for lease in self.pool.admit(slots)}
        admissible = self.model.admissible()
        if slots > len(admissible):
            self.model.leased |= admissible
            self.model.extend()
            self.model.leased -= admissible
            admissible = self.model.admissible()
        assert given.keys() <= admissible
        assert len(given) == min(slots, len(admissible))
        self.model.admit(set(given))
        self.leases |= given

    def end_one(self, task: Task, end: str, seconds: int = 20) -> None:
        lease = self.leases.pop(task)
        if end == "drop":
            assert self.pool.ask("m", "drop", lease, "401 from beta/b-big") == ["released"]
            self.model.drop(task)
        elif end == "finish":
            is_batch = task[0] in BATCHES
            records = self.model.records_of(task[1]) if is_batch else [task[1]]
            value = '"made"'
            if task[0] == "condition":
                value = "true" if self.model.holds(task[1]) else "false"
            cells = [part for record in records for part in (str(record), task[0], value)]
            assert self.pool.finish(lease, *cells, result=b"") == "released"
            self.model.finish(task)
        elif end == "fail":
            delay = seconds * SECOND_US
            assert self.pool.ask("m", "retry", lease, delay, 0, "", "500", "", "") == ["released"]
            self.model.fail(task, delay)
        else:
            resource = ASKS.get(task[0], "") if end == "refuse" else ""
            delay = seconds * SECOND_US
            assert self.pool.ask("m", "retry", lease, delay, 1, resource) == ["released"]
            self.model.defer(task, delay, is_cooling=bool(resource))

    @precondition(lambda self: getattr(self, "leases", None))
    @rule(
        pick=st.integers(0, 99),
        end=st.sampled_from(["finish", "drop", "refuse", "delay", "fail"]),
        seconds=st.integers(1, 40),
    )
    def end_any(self, pick: int, end: str, seconds: int) -> None:
        self.end_one(sorted(self.leases)[pick % len(self.leases)], end, seconds)

    @rule(
        rounds=st.integers(1, 4),
        ends=st.fixed_dictionaries(
            {
                "a": st.sampled_from(["finish", "refuse", "refuse", "drop", "drop", "fail"]),
                "b": st.sampled_from(["finish", "finish", "refuse"]),
            }
        ),
    )
    def work(self, rounds: int, ends: dict[str, str]) -> None:
        """Let workers take all that may go, as often; each column's cells end alike."""
        for _ in range(rounds):
            self.admit(99)
            for task in sorted(self.leases):
                self.end_one(task, ends.get(task[0], "finish"))

    @rule(seconds=st.integers(1, 40))
    def pass_time(self, seconds: int) -> None:
        self.pool.pass_time(seconds)
        self.model.now += seconds * SECOND_US
        self.pool.ask_for(0)
        self.collect()

    @rule()
    def collect(self) -> None:
        """Look as a driver does, which attends the run from now on."""
        if not self.model.is_attended:
            self.pool.join("d")
            self.pool.beat("d", LIFE_US)
        self.model.is_attended = True
        word, *told = self.pool.ask("d", "run_collect", "run")
        self.model.admit_row_groups()
        told[5] = sorted(told[5])
        told[7] = told[7] and [told[7][0], told[7][-1]]
        assert [word, *told] == ["progress", *self.model.progress()]

    @precondition(lambda self: hasattr(self, "model") and self.model.unwritten())
    @rule()
    def write(self) -> None:
        row_group = self.model.unwritten()[0]
        is_last = len(self.model.written) + 1 == self.model.row_groups
        answer = "ended" if is_last else "written"
        assert self.pool.ask("m", "run_written", "run", row_group) == [answer]
        self.model.write(row_group)
        if is_last:
            self.end()
            self.begin_again()

    def begin_again(self) -> None:
        model = self.model
        self.pool.ask("m", "discard", "none", b"", "")
        self.begin(
            (model.records, model.buffer_size, model.max_open),
            model.max_rows,
            model.columns,
            model.is_additive,
        )

    @precondition(lambda self: hasattr(self, "model") and self.model.stopped is not None)
    @rule()
    def resume(self) -> None:
        """Submit a run again that stopped itself."""
        self.collect()
        assert self.pool.ask("d", "run_submit", "run", plan_of(self.model), "{}") == ["known"]
        self.model.resume()

    @precondition(lambda self: hasattr(self, "model") and self.model.is_attended)
    @rule()
    def driver_leaves(self) -> None:
        assert self.pool.ask("d", "leave") == ["left"]
        self.model.is_attended = False

    @invariant()
    def counts_add_up(self) -> None:
        if hasattr(self, "pool"):
            assert self.pool.audit().differences == ()

    def end(self) -> None:
        for kind in ("runs", "progress", "cells", "row_groups", "checkpoints"):
            assert not self.pool.client.exists(self.pool.keys[kind]), kind
        self.pool.close()

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.ask("m", "run_cancel", "run")
            for lease in self.leases.values():
                self.pool.finish(lease, result=b"")
            for kind in ("runs", "progress", "cells", "row_groups", "checkpoints", "tasks"):
                assert not self.pool.client.exists(self.pool.keys[kind]), kind
            assert self.pool.audit().differences == ()
            self.pool.close()


TestRun = RunMachine.TestCase
TestRun.settings = settings(SETTINGS, max_examples=2000 if LONG else 30, stateful_step_count=25)
