"""The ``expression`` generator: a text over other columns, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay.contracts.workflow_columns import ExpressionColumn
from forebay.workers.generators.base import GenerationContext, RecordGenerator
from forebay.workers.generators.templates import RowTemplate


class ExpressionGenerator(RecordGenerator):
    """Renders the template of a column."""

    def __init__(self, column: ExpressionColumn) -> None:
        self._name = column.name
        self._template = RowTemplate("template", column.template)

    async def generate(
        self,
        inputs: Mapping[str, Any],
        context: GenerationContext,  # noqa: ARG002 - an expression asks no model
    ) -> Mapping[str, Any]:
        """Return the rendered text without trailing white space.

        Raises:
            RecordRejected: the template does not fit this record.
        """
        text = await self._template.render(inputs)
        return {self._name: text.rstrip()}
