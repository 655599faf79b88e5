"""Base of generators that call a chat model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay.contracts.identity import RequestDomain, TaskGroupKind
from forebay.contracts.scheduling import SchedulingMetadata
from forebay.contracts.workflow import Workflow
from forebay.contracts.workflow_columns import ChatColumn
from forebay.workers.generators.base import ChatAnswer, RecordGenerator, RecordRejected
from forebay.workers.generators.templates import RowTemplate


class ChatGenerator(RecordGenerator):
    """Renders the messages of a column, and declares its model."""

    def __init__(self, column: ChatColumn, workflow: Workflow) -> None:
        self.name = column.name
        self.alias = column.model
        self._templates = {
            role: RowTemplate(field, source)
            for role, field, source in (
                ("system", "system", column.system),
                ("user", "prompt", column.prompt),
            )
            if source is not None
        }
        model = workflow.models[column.model]
        self._metadata = SchedulingMetadata(
            kind=TaskGroupKind.MODEL,
            identity=("model", model.provider, model.model, RequestDomain.CHAT.value),
            weight=workflow.static_cap(column.model),
        )

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Return the endpoint and its static cap: the same for all its aliases (design 02)."""
        return self._metadata

    def cut(self, answer: ChatAnswer, other_remedy: str = "") -> RecordRejected:
        """Return the error for an answer that its bound of tokens cut off."""
        remedy = ", ".join(filter(None, ("raise max_tokens of the model", other_remedy)))
        return RecordRejected(
            f"answer_cut: the answer of model {self.alias!r} was ended by its bound of tokens after"
            f" {answer.output_tokens}; {remedy}"
        )

    async def messages(self, inputs: Mapping[str, Any]) -> list[dict[str, str]]:
        """Return the system and the user's message for one record.

        Raises:
            RecordRejected: a template does not fit this record.
        """
        return [
            {"role": role, "content": await template.render(inputs)}
            for role, template in self._templates.items()
        ]
