"""The ``condition`` generator: evaluates a ``skip_when`` for a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay.contracts.workflow_columns import ConditionColumn
from forebay.workers.generators.base import GenerationContext, RecordGenerator
from forebay.workers.generators.templates import RowTemplate


class ConditionGenerator(RecordGenerator):
    """Evaluates the expression of a condition; a skipped column is ``none`` in it."""

    def __init__(self, column: ConditionColumn) -> None:
        self._name = column.name
        self._template = RowTemplate("skip_when", column.templates["skip_when"])

    async def generate(
        self,
        inputs: Mapping[str, Any],
        context: GenerationContext,  # noqa: ARG002 - a condition asks no model
    ) -> Mapping[str, Any]:
        """Return whether the expression holds for a record.

        Raises:
            RecordRejected: the expression does not fit this record.
        """
        return {self._name: await self._template.render(inputs) == "true"}
