"""The ``llm_structured`` generator: JSON that its schema accepts, with repair attempts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from forebay.contracts.workflow import Workflow
from forebay.contracts.workflow_columns import LlmStructuredColumn
from forebay.workers.generators.answer_schema import AnswerRefused, AnswerSchema
from forebay.workers.generators.base import GenerationContext, RecordRejected
from forebay.workers.generators.chat import ChatGenerator
from forebay.workers.generators.strict_json import parse_json


class LlmStructuredGenerator(ChatGenerator):
    """Asks, checks, and asks again with what was wrong; each call is admitted by itself."""

    def __init__(self, column: LlmStructuredColumn, workflow: Workflow) -> None:
        super().__init__(column, workflow)
        self._json_schema = column.json_schema
        self._schema = AnswerSchema(column.json_schema)
        self._attempts = 1 + column.repair_attempts

    async def generate(
        self, inputs: Mapping[str, Any], context: GenerationContext
    ) -> Mapping[str, Any]:
        """Return the answer's value.

        Raises:
            RecordRejected: a template does not fit, or no attempt gave what the schema accepts.
        """
        question = self.messages(inputs)
        messages = question
        reason = ""
        for _ in range(self._attempts):
            answer = await context.models.chat(
                self.alias, messages, response_schema=self._json_schema
            )
            try:
                return {self.name: self._read(answer.text)}
            except AnswerRefused as refusal:
                reason = refusal.reason
                # The last answer alone, so that the prompt does not grow with each repair.
                messages = [*question, *self._complaint(answer.text, refusal.detail)]
        raise RecordRejected(f"invalid_json after {self._attempts} attempts: {reason}")

    def _read(self, text: str) -> Any:
        try:
            value = parse_json(_without_fence(text))
        except ValueError as error:
            raise AnswerRefused(str(error), str(error)) from None
        self._schema.check(value)
        return value

    def _complaint(self, text: str, detail: str) -> list[dict[str, str]]:
        schema = json.dumps(self._json_schema, ensure_ascii=False)
        return [
            # Providers refuse a message without content.
            {"role": "assistant", "content": text or "(no answer)"},
            {
                "role": "user",
                "content": f"That answer was refused: {detail}. Answer with JSON alone that"
                f" matches this JSON Schema: {schema}",
            },
        ]


def _without_fence(text: str) -> str:
    """Return what stands between code fences, which models put around JSON, or all of it."""
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", text, re.DOTALL)
    return fenced[1] if fenced else text
