"""The preview of a workflow: its first records, with each prompt and answer.

Rules: design 05, *Workflow files*.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from forebay.contracts.workflow import PlannedColumn, RecordRange, Workflow
from forebay.workers.generators.base import (
    ChatAnswer,
    GenerationContext,
    ModelCaller,
    RecordGenerator,
    RecordRejected,
    RowGroupGenerator,
)
from forebay.workers.generators.registry import build_generator
from forebay.workers.runs.cell_failures import ModelCallFailed, reason_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedCall:
    """A call of a model.

    Attributes:
        alias: the model.
        messages: with ``role`` and ``content``.
        answer: None where there was none.
        seconds: from the question to the answer, waits for a lease included.
    """

    alias: str
    messages: list[dict[str, str]]
    answer: ChatAnswer | None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedCell:
    """One column of one record, or of a seed all its columns.

    Attributes:
        column: names of what it makes.
        values: by name; None where the cell was skipped or is missing.
        calls: of models, in order.
        problem: why there is no value; None where there is one, or the cell was skipped.
    """

    column: tuple[str, ...]
    values: Mapping[str, Any] | None
    calls: tuple[PreviewedCall, ...] = ()
    problem: str | None = None


_CALLS: Final[ContextVar[list[PreviewedCall] | None]] = ContextVar("previewed_calls", default=None)


class RecordingModels:
    """Models whose calls are kept for the cell that makes them.

    Args:
        models: makes the calls.
    """

    def __init__(self, models: ModelCaller) -> None:
        self._models = models

    async def embed(self, alias: str, texts: Sequence[str]) -> list[list[float]]:
        """Embed as `ModelCaller.embed` does, and keep the texts."""
        began = time.monotonic()
        vectors = await self._models.embed(alias, texts)
        answer = ChatAnswer(
            text=f"{len(vectors)} vectors of {len(vectors[0])}", input_tokens=0, output_tokens=0
        )
        self._keep(alias, [{"role": "input", "content": text} for text in texts], answer, began)
        return vectors

    async def chat(
        self,
        alias: str,
        messages: list[dict[str, str]],
        *,
        response_schema: Mapping[str, Any] | None = None,
    ) -> ChatAnswer:
        """Call `ModelCaller.chat`, and keep the prompt and the answer."""
        answer, began = None, time.monotonic()
        try:
            answer = await self._models.chat(alias, messages, response_schema=response_schema)
        finally:
            self._keep(alias, messages, answer, began)
        return answer

    def _keep(
        self, alias: str, messages: list[dict[str, str]], answer: ChatAnswer | None, began: float
    ) -> None:
        calls = _CALLS.get()
        if calls is not None:
            seconds = time.monotonic() - began
            calls.append(
                PreviewedCall(alias=alias, messages=list(messages), answer=answer, seconds=seconds)
            )


async def preview(
    workflow: Workflow, models: ModelCaller, records: int
) -> AsyncIterator[tuple[int, list[PreviewedCell]]]:
    """Make the first records, all at a time, and yield each with its cells in order.

    A failed call is not tried again here, so that a person sees it at once.

    Args:
        workflow: as loaded.
        models: its models.
        records: how many, at most those of the seed.
    """
    context = GenerationContext(models=RecordingModels(models))
    count = min(records, workflow.record_count)
    generators = [build_generator(column, workflow) for column in workflow.columns]
    roots: list[dict[str, Any]] = [{} for _ in range(count)]
    for generator in generators:
        if isinstance(generator, RowGroupGenerator):
            rows = await generator.generate(RecordRange(start=0, count=count), context)
            for record, row in zip(roots, rows, strict=True):
                record.update(row)
    making = [
        asyncio.ensure_future(_make_record(workflow, generators, values, context))
        for values in roots
    ]
    try:
        for number, made in enumerate(making):
            yield number, await made
    finally:
        for made in making:
            made.cancel()
        await asyncio.gather(*making, return_exceptions=True)


async def _make_record(
    workflow: Workflow,
    generators: list[RecordGenerator | RowGroupGenerator],
    values: dict[str, Any],
    context: GenerationContext,
) -> list[PreviewedCell]:
    cells: dict[int, PreviewedCell] = {}
    skipped: set[str] = set()
    waiting = dict(enumerate(workflow.columns))
    for index, column in enumerate(workflow.columns):
        if isinstance(generators[index], RowGroupGenerator):
            del waiting[index]
            made = {name: values[name] for name in column.outputs}
            cells[index] = PreviewedCell(column=column.outputs, values=made)
    while waiting:
        ready = [i for i, column in waiting.items() if not set(column.depends_on) & set(waiting)]
        for index in ready:
            column, generator = waiting.pop(index), generators[index]
            if isinstance(generator, RowGroupGenerator):
                continue
            cell = await _make_cell(column, generator, values, skipped, context)
            cells[index] = cell
            values.update(cell.values or dict.fromkeys(column.outputs))
            if cell.problem is not None:  # the record is dropped, as in a run
                return [cells[i] for i in sorted(cells)]
    return [cells[i] for i in sorted(cells)]


async def _make_cell(
    column: PlannedColumn,
    generator: RecordGenerator,
    values: Mapping[str, Any],
    skipped: set[str],
    context: GenerationContext,
) -> PreviewedCell:
    inherits = getattr(column.spec, "propagate_skip", False) and skipped & set(column.inputs)
    if inherits or (column.condition is not None and values[column.condition]):
        skipped.update(column.outputs)
        return PreviewedCell(column=column.outputs, values=None)
    calls: list[PreviewedCall] = []
    token = _CALLS.set(calls)
    problem, made = None, None
    try:
        made = await generator.generate({name: values[name] for name in column.inputs}, context)
    except (RecordRejected, ModelCallFailed) as error:
        problem = error.reason
    except Exception as error:  # noqa: BLE001 - a generator may be the user's, and fail in any way
        problem = reason_of(error)
    finally:
        _CALLS.reset(token)
    return PreviewedCell(column=column.outputs, values=made, calls=tuple(calls), problem=problem)
