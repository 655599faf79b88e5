"""The ``llm_text`` generator: the text of a model's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay.workers.generators.base import GenerationContext, RecordRejected
from forebay.workers.generators.chat import ChatGenerator


class LlmTextGenerator(ChatGenerator):
    """Asks once a record."""

    async def generate(
        self, inputs: Mapping[str, Any], context: GenerationContext
    ) -> Mapping[str, Any]:
        """Return the answer as it came.

        Raises:
            RecordRejected: a template does not fit, or the answer is no text that can be stored.
        """
        answer = await context.models.chat(self.alias, await self.messages(inputs))
        try:
            answer.text.encode()
        except UnicodeEncodeError:
            raise RecordRejected("invalid_text: the answer holds a lone surrogate") from None
        return {self.name: answer.text}
