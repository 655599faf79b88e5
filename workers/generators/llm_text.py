"""The ``llm_text`` generator: the text of a model's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay.contracts.workflow import Workflow
from forebay.contracts.workflow_columns import LlmTextColumn
from forebay.workers.generators.base import GenerationContext, RecordRejected
from forebay.workers.generators.chat import ChatGenerator


class LlmTextGenerator(ChatGenerator):
    """Calls its model once for each record."""

    def __init__(self, column: LlmTextColumn, workflow: Workflow) -> None:
        super().__init__(column, workflow)
        self._keeps_cut = column.on_cut == "keep"

    async def generate(
        self, inputs: Mapping[str, Any], context: GenerationContext
    ) -> Mapping[str, Any]:
        """Return the text of the answer, unchanged.

        Raises:
            RecordRejected: a template does not fit, the bound of tokens ended the answer, or it is
                no text that can be stored.
        """
        answer = await context.models.chat(self.alias, await self.messages(inputs))
        if answer.is_cut and not self._keeps_cut:
            raise self.cut(answer, "or say on_cut = 'keep'")
        try:
            answer.text.encode()
        except UnicodeEncodeError:
            raise RecordRejected("invalid_text: the answer holds a lone surrogate") from None
        return {self.name: answer.text}
