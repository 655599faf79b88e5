"""Counts the use of runs' cells in one worker, sent to the server with its other calls."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final, TypeVar

from forebay.contracts.outcomes import RequestOutcomeKind, TokenUsage
from forebay.contracts.run_use import ColumnUse, ModelUse
from forebay.contracts.tasks import RunCell
from forebay.workers.providers.classification import DefaultClassifier
from forebay.workers.providers.openai_answers import ProviderAnswer

Answer = TypeVar("Answer", bound=ProviderAnswer)

_CLASSIFIER: Final = DefaultClassifier()

ReportUse = Callable[[str, int, Callable[[], ColumnUse]], None]
"""Called with a run, a column counted from 1, and a function that returns its use."""


class CellUse:
    """Calls and tokens of one task, counted while it runs.

    Attributes:
        models: by ``provider/model``.
    """

    def __init__(self) -> None:
        self.models: dict[str, ModelUse] = {}

    def note_call(self, name: str) -> None:
        """Note an attempt that is sent."""
        self._add(name, ModelUse(calls=1))

    def note_usage(self, name: str, usage: TokenUsage) -> None:
        """Note the tokens of an answer."""
        tokens = ModelUse(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
        self._add(name, tokens)

    def note_failure(self, name: str, error: Exception) -> None:
        """Note that a call failed, or was refused for want of capacity."""
        outcome = _CLASSIFIER.classify_exception(error, now=time.time())
        if outcome.kind is RequestOutcomeKind.RATE_LIMITED:
            self._add(name, ModelUse(rate_limited=1))
        else:
            self._add(name, ModelUse(failed=1))

    def note_time(self, name: str, seconds: float) -> None:
        """Note how long a call was under way."""
        self._add(name, ModelUse(busy_seconds=seconds))

    def _add(self, name: str, use: ModelUse) -> None:
        self.models[name] = self.models.get(name, ModelUse()) + use


current_use: Final[ContextVar[CellUse | None]] = ContextVar("forebay_cell_use", default=None)
"""The use of the task under way, inherited by the asyncio tasks that it starts."""


class UseOfRuns:
    """Sums up what cells used until the next call of the server, one sum a run and column.

    Args:
        report: tells a sum; `CompletionTracker.report_use`.
    """

    def __init__(self, report: ReportUse) -> None:
        self._report = report
        self._sums: dict[tuple[str, int], ColumnUse] = {}

    def add(self, cell: RunCell, use: ColumnUse) -> None:
        """Add what a task of a run has used."""
        key = (cell.run_id, cell.column_index)
        before = self._sums.get(key)
        self._sums[key] = use if before is None else before + use
        if before is None:
            self._report(*key, lambda: self._sums.pop(key))


def noted_attempt(
    ask: Callable[[], Awaitable[Answer]], name: str
) -> Callable[[], Awaitable[Answer]]:
    """Return an attempt that is noted as use of the cell that makes it."""
    use = current_use.get() or CellUse()

    async def call() -> Answer:
        use.note_call(name)
        began = time.monotonic()
        try:
            answer = await ask()
        except Exception as error:
            use.note_failure(name, error)
            raise
        finally:
            use.note_time(name, time.monotonic() - began)
        use.note_usage(name, answer.usage or TokenUsage())
        return answer

    return call
