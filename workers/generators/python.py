"""The ``python`` generator: a function or class of the user's, with any number of model calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from forebay.contracts.errors import ConfigurationError, WorkflowError
from forebay.contracts.scheduling import SchedulingMetadata
from forebay.contracts.workflow import RecordRange, TaskType, Workflow
from forebay.contracts.workflow_local_columns import PythonColumn
from forebay.workers.generators.base import (
    BatchGenerator,
    ChatAnswer,
    GenerationContext,
    ModelCaller,
    RecordGenerator,
    RecordRejected,
    RowGroupGenerator,
)
from forebay.workers.generators.code import load_target

_NO_FAILURES: Final = (
    StopIteration,
    SystemExit,
    KeyboardInterrupt,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
)
"""Exceptions that, raised in a thread, would not reach the caller."""


class DeclaredModels:
    """Lets a column's code call the models that the column declares, and no others.

    Args:
        models: of the workflow.
        aliases: that may be called.
        column: the column, for messages.
    """

    def __init__(self, models: ModelCaller, aliases: Sequence[str], column: str) -> None:
        self._models = models
        self._aliases = aliases
        self._column = column

    async def chat(
        self,
        alias: str,
        messages: list[dict[str, str]],
        *,
        response_schema: Mapping[str, Any] | None = None,
    ) -> ChatAnswer:
        """Ask a model; as `ModelCaller.chat`.

        Raises:
            ConfigurationError: the column does not declare it.
        """
        return await self._models.chat(
            self._checked(alias), messages, response_schema=response_schema
        )

    async def embed(self, alias: str, texts: Sequence[str]) -> list[list[float]]:
        """Embed texts; as `ModelCaller.embed`.

        Raises:
            ConfigurationError: the column does not declare it.
        """
        return await self._models.embed(self._checked(alias), texts)

    def _checked(self, alias: str) -> str:
        if alias not in self._aliases:
            raise ConfigurationError(
                f"column {self._column!r} calls model {alias!r}, expected one of its models:"
                f" {', '.join(self._aliases) or 'none'}; add it to the column's models."
            )
        return alias


class PythonGenerator(RecordGenerator):
    """Calls the user's code once a record; a function that is not async runs in a thread.

    Args:
        column: names the code.
        workflow: in whose folder it may lie.

    Raises:
        WorkflowError: the code cannot be imported or made.
    """

    def __init__(self, column: PythonColumn, workflow: Workflow) -> None:
        self._column = column
        target = load_target(column.function, Path(workflow.file).parent)
        self._params: Mapping[str, Any] = column.params
        self._declares: Callable[[], SchedulingMetadata] | None = None
        if inspect.isclass(target):
            plugin: Any = target(**column.params)
            self._params = {}
            self._declares = getattr(plugin, "get_scheduling_metadata", None)
            target = plugin.generate
        self._call: Callable[..., Any] = target

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Return the scheduling metadata of the code; by default that of its models."""
        return SchedulingMetadata() if self._declares is None else self._declares()

    async def generate(
        self, inputs: Mapping[str, Any], context: GenerationContext
    ) -> Mapping[str, Any]:
        """Call the code with a record; return its value.

        Raises:
            RecordRejected: the value is none that JSON has.
            Exception: whatever the code raised; the record is dropped with its place.
        """
        return {self._column.name: await self.call(dict(inputs), context)}

    async def call(self, given: Any, context: GenerationContext) -> Any:
        """Call the code with a record or a list of records; return its value.

        Raises:
            RecordRejected: the value is none that JSON has, or holds text that UTF-8 cannot encode.
            WorkflowError: the code ended by an exception that stands for no failure, such as
                ``SystemExit``, or by a cancellation of its own.
            Exception: whatever else the code raised.
        """
        models = DeclaredModels(context.models, self._column.models, self._column.name)
        value = await self._value_of(given, models)
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:
            raise RecordRejected(
                f"invalid_text: {self._column.function} returned text with a lone surrogate; let it"
                " return text that UTF-8 can encode"
            ) from None
        except (TypeError, ValueError):
            raise RecordRejected(
                f"not_json: {self._column.function} returned a {type(value).__name__} that JSON"
                " does not have; let it return text, numbers, booleans, None, lists and dicts"
            ) from None
        return value

    async def _value_of(self, given: Any, models: DeclaredModels) -> Any:
        if not inspect.iscoroutinefunction(self._call):
            return await asyncio.to_thread(self._called, given, models)
        try:
            return await self._call(given, models, **self._params)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the job is cancelled, not the code alone
            raise self._ended_by(error) from error

    def _called(self, given: Any, models: DeclaredModels) -> Any:
        try:
            return self._call(given, models, **self._params)
        except _NO_FAILURES as error:
            raise self._ended_by(error) from error

    def _ended_by(self, error: BaseException) -> WorkflowError:
        return WorkflowError(
            f"{self._column.function} raised {type(error).__name__}, expected a value, or an error"
            " of another kind; correct the code."
        )


class PythonBatchGenerator(BatchGenerator):
    """Calls the user's code once a row group, with a list of records.

    Args:
        code: calls it.
        column: names it.
    """

    def __init__(self, code: PythonGenerator, column: PythonColumn) -> None:
        self._code = code
        self._column = column

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Return the scheduling metadata of the code; by default that of its models."""
        return self._code.get_scheduling_metadata()

    async def generate_batch(
        self, rows: Sequence[Mapping[str, Any]], context: GenerationContext
    ) -> Sequence[Mapping[str, Any]]:
        """Call the code with all records; return a value for each.

        Raises:
            RecordRejected: the value is no list of as many values that JSON has.
            Exception: whatever the code raised; the records are dropped with its place.
        """
        values = await self._code.call([dict(row) for row in rows], context)
        return _one_each(values, len(rows), self._column)


class PythonRootGenerator(RowGroupGenerator):
    """Calls the user's code once a row group, with the numbers of its records.

    Args:
        code: calls it.
        column: names it.
    """

    def __init__(self, code: PythonGenerator, column: PythonColumn) -> None:
        self._code = code
        self._column = column

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Return the scheduling metadata of the code; by default that of its models."""
        return self._code.get_scheduling_metadata()

    async def generate(
        self, records: RecordRange, context: GenerationContext
    ) -> list[dict[str, Any]]:
        """Call the code with the numbers of the records, from 0; return a value for each.

        Raises:
            RecordRejected: the value is no list of as many values that JSON has.
            Exception: whatever the code raised; the records are dropped with its place.
        """
        numbers = list(range(records.start, records.start + records.count))
        values = await self._code.call(numbers, context)
        return _one_each(values, records.count, self._column)


def _one_each(values: Any, count: int, column: PythonColumn) -> list[dict[str, Any]]:
    """Return the values of a row group by name.

    Raises:
        RecordRejected: they are no list of so many.
    """
    if not isinstance(values, list) or len(values) != count:
        found = f"{len(values)} values" if isinstance(values, list) else type(values).__name__
        raise RecordRejected(
            f"wrong_batch: {column.function} returned {found}, expected a list of one"
            f" value for each of {count} records; correct the function"
        )
    return [{column.name: value} for value in values]


def python_generator(
    column: PythonColumn, workflow: Workflow, task_type: TaskType
) -> RecordGenerator | RowGroupGenerator:
    """Return the generator of a column of the user's code, for records or for row groups.

    Args:
        column: names the code.
        workflow: in whose folder it may lie.
        task_type: as the code or the file says it.

    Raises:
        WorkflowError: the code cannot be imported or made.
    """
    code = PythonGenerator(column, workflow)
    match task_type:
        case TaskType.CELL:
            return code
        case TaskType.BATCH:
            return PythonBatchGenerator(code, column)
        case TaskType.FROM_SCRATCH:
            return PythonRootGenerator(code, column)
