"""``CompletionTracker``: submitting a run, reading its cells, and writing it out.

Rules: design 05, *Readiness*.

Which inputs a task still misses is decided in Redis, in the script that finishes a task; this is
the view of it, and the driver's three orders: submit, written, cancel.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, cast

import redis.asyncio as aioredis

from forebay.contracts.errors import ConfigurationError, RunRefused
from forebay.contracts.run_use import ColumnUse
from forebay.contracts.runs import RunProgress, RunSpec
from forebay.contracts.scheduling import ResolvedTaskScheduling
from forebay.contracts.tasks import TaskAdmissionError
from forebay.contracts.workflow import RecordRange, Workflow
from forebay.coordinator.keys import check_id, encode
from forebay.coordinator.runs.plan import build_plan
from forebay.coordinator.runs.progress import decode_progress
from forebay.coordinator.runs.records import WrittenRecord, fields_of, read_record
from forebay.coordinator.runs.scheduling import resource_limits
from forebay.coordinator.runs.use import encode_use
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.denials import check_accepted
from forebay.coordinator.tasks.operations import Named

MOST_WORKFLOW_BYTES: Final = 8 * 2**20
"""Largest workflow of a run as JSON, in bytes; a workflow file has at most 1 MB."""

WrittenAnswer = Literal["written", "ended", "unknown"]
"""``unknown``: the server knows no such run, or none of its row groups that waits to be written."""


class CompletionTracker:
    """Submits, reads and finishes the runs of one pool.

    Args:
        controller: the pool.
        client: for reading cells.
    """

    def __init__(self, controller: TaskAdmissionController, client: aioredis.Redis) -> None:
        self._controller = controller
        self._client: Any = client  # see ServerConnection.client
        self._keys = controller.keys

    async def submit(self, run: RunSpec, scheduling: Sequence[ResolvedTaskScheduling]) -> bool:
        """Begin a run, with this member as its driver; its first row groups are queued at once.

        While this process is a member of the pool, the run's claims of limits count and its row
        groups are admitted; `collect` makes the caller its driver again.

        Returns:
            Whether it is new; False where it is going on already.

        Raises:
            TaskAdmissionError: a resource that the pool does not have, or a workflow above
                ``MOST_WORKFLOW_BYTES``; nothing was queued.
        """
        text = run.model_dump_json()
        if len(text.encode()) > MOST_WORKFLOW_BYTES:
            raise TaskAdmissionError(
                "payload_too_large",
                f"the workflow of run {run.run_id!r} is longer than {MOST_WORKFLOW_BYTES:,} bytes"
                " as JSON, values behind a YAML alias written out; make it smaller.",
            )
        plan = build_plan(run.workflow, scheduling, resource_limits(run))
        result = await self._controller.ask("run_submit", check_id("run", run.run_id), plan, text)
        return check_accepted(result, f"run {run.run_id!r}")

    async def spec(self, run_id: str) -> RunSpec | None:
        """Return the specification of a run that has not ended, or None."""
        field = f"{check_id('run', run_id)}\0workflow"
        length = await self._client.hstrlen(self._keys["runs"], field)
        if length > MOST_WORKFLOW_BYTES:
            raise ConfigurationError(
                f"the workflow of run {run_id!r} has {length:,} bytes, expected at most"
                f" {MOST_WORKFLOW_BYTES:,}; submit the run with a smaller one."
            )
        text = await self._client.hget(self._keys["runs"], field)
        return None if text is None else RunSpec.model_validate_json(text)

    async def drive(self, run_id: str, owner: str) -> None:
        """Set the name of a run's driver process; the first call sets the run's begin."""
        await self._controller.ask("run_drive", encode(run_id), owner)

    def report_use(self, run_id: str, column: int, take: Callable[[], ColumnUse]) -> None:
        """Send the use of a column's cells to the pool with the next call of this process.

        Where the server is away for longer than a call may take, that use is not told.

        Args:
            run_id: the run.
            column: its number, from 1.
            take: returns what they have used since it was told last, when that call leaves.
        """
        run, made = encode(run_id), list[Named]()

        def make() -> Named:  # again, where the call is refused and sent anew
            if not made:
                made.append(Named("run_used", (run, column, encode_use(take()))))
            return made[0]

        self._controller.session.submit(make)

    async def ready_frontier(self, run_id: str) -> frozenset[str]:
        """Return the unfinished tasks of a run whose inputs are there; changes nothing.

        Returns:
            Task ids, ``run:column:r<record>`` or ``run:column:g<row group>``; those that run, are
            deferred or wait for a cooldown are among them. Names are encoded as in keys.
        """
        start = f"{encode(run_id)}:"
        found = self._client.hscan_iter(self._keys["tasks"], match=f"{start}*", count=1000)
        return frozenset([task_id.decode() async for task_id, _task in found])

    async def collect(self, run_id: str) -> RunProgress | None:
        """Become the driver of a run, return its progress, and get notices of its row groups.

        Returns:
            None where the server knows no such run: it has ended, was cancelled, or was lost.

        Raises:
            RunRefused: no live worker may make its cells, and none was made.
        """
        result = await self._controller.ask("run_collect", encode(run_id))
        if result[0] == "refused":
            raise RunRefused(f"run {run_id!r} is refused: {result[1]}")
        return None if result == ["unknown"] else decode_progress(result)

    async def accept(self, run_id: str) -> bool:
        """Accept a run for this process; False where the run is refused already."""
        return await self._controller.ask("run_accept", encode(run_id)) == ["accepted"]

    async def refuse(self, run_id: str, reason: str) -> None:
        """Refuse a run for this process; its driver gets a notice once all members refuse it."""
        await self._controller.ask("run_refuse", encode(run_id), reason)

    async def inputs(
        self, run_id: str, record: int, columns: Sequence[str]
    ) -> dict[str, Any] | None:
        """Return a record's values of some columns, or None where the record was dropped."""
        (row,) = await self._read(run_id, [record], columns)
        return _inputs_of(run_id, record, columns, row)

    async def batch_inputs(
        self, run_id: str, records: RecordRange, columns: Sequence[str]
    ) -> dict[int, dict[str, Any]]:
        """Return values of some columns of each record of a row group that was not dropped."""
        numbers = range(records.start, records.start + records.count)
        rows = await self._read(run_id, numbers, columns)
        read = {
            number: _inputs_of(run_id, number, columns, row)
            for number, row in zip(numbers, rows, strict=True)
        }
        return {number: inputs for number, inputs in read.items() if inputs is not None}

    async def read_row_group(
        self, run_id: str, workflow: Workflow, row_group: int
    ) -> list[WrittenRecord] | None:
        """Return the records of a finished row group, in order; None where some are lost."""
        names = workflow.output_names
        first = row_group * workflow.buffer_size
        last = min(first + workflow.buffer_size, workflow.record_count)
        rows = await self._read(run_id, range(first, last), names)
        read = (read_record(record, workflow, row) for record, row in enumerate(rows, first))
        records = [record for record in read if record is not None]
        return records if len(records) == len(rows) else None

    async def written(self, run_id: str, row_group: int) -> WrittenAnswer:
        """Report a row group as written: its cells are deleted; the last one ends the run."""
        (answer,) = await self._controller.ask("run_written", encode(run_id), row_group)
        return cast("WrittenAnswer", answer)

    async def cancel(self, run_id: str) -> bool:
        """End a run at once; return whether there was one."""
        return await self._controller.ask("run_cancel", check_id("run", run_id)) == ["cancelled"]

    async def _read(
        self, run_id: str, records: Sequence[int], names: Sequence[str]
    ) -> list[list[Any]]:
        """Return each record's values as bytes, and the reason of its drop; None for neither."""
        async with self._client.pipeline(transaction=False) as pipe:
            for record in records:
                pipe.hmget(self._keys["cells"], fields_of(run_id, record, names))
            rows: list[list[Any]] = await pipe.execute()
        return rows


def _inputs_of(
    run_id: str, record: int, columns: Sequence[str], row: Sequence[Any]
) -> dict[str, Any] | None:
    """Return a record's inputs; None where it was dropped."""
    *values, dropped = row
    if dropped is not None:
        return None
    if None in values:
        name = columns[values.index(None)]
        raise ConfigurationError(
            f"record {record} of run {run_id!r} has no {name!r} yet; its task must not run before."
            " Please report this."
        )
    return {name: json.loads(value) for name, value in zip(columns, values, strict=True)}
