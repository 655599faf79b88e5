"""The ``embedding`` generator: the vector of a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay.contracts.identity import RequestDomain, TaskGroupKind
from forebay.contracts.scheduling import SchedulingMetadata
from forebay.contracts.workflow import Workflow
from forebay.contracts.workflow_columns import EmbeddingColumn
from forebay.workers.generators.base import GenerationContext, RecordGenerator
from forebay.workers.generators.templates import RowTemplate


class EmbeddingGenerator(RecordGenerator):
    """Embeds one text a record."""

    def __init__(self, column: EmbeddingColumn, workflow: Workflow) -> None:
        self._name = column.name
        self._alias = column.model
        self._template = RowTemplate("text", column.text)
        model = workflow.models[column.model]
        self._metadata = SchedulingMetadata(
            kind=TaskGroupKind.MODEL,
            identity=("model", model.provider, model.model, RequestDomain.EMBEDDING.value),
            weight=workflow.static_cap(column.model),
        )

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Return the endpoint and its static cap (design 02)."""
        return self._metadata

    async def generate(
        self, inputs: Mapping[str, Any], context: GenerationContext
    ) -> Mapping[str, Any]:
        """Return the vector as a list of numbers.

        Raises:
            RecordRejected: the template does not fit this record.
        """
        text = await self._template.render(inputs)
        (vector,) = await context.models.embed(self._alias, [text])
        return {self._name: list(vector)}
