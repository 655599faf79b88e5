"""The ``llm_structured`` generator: JSON that its schema accepts, with repair attempts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from forebay.contracts.workflow import Workflow
from forebay.contracts.workflow_columns import LlmStructuredColumn
from forebay.workers.evaluation.evaluator import EvaluationFailed, EvaluationRefused, evaluator
from forebay.workers.generators.base import GenerationContext, RecordRejected
from forebay.workers.generators.chat import ChatGenerator

MOST_QUOTED_CHARACTERS: Final = 20_000
"""Most characters of a refused answer that are shown to the model again."""


class LlmStructuredGenerator(ChatGenerator):
    """Calls the model again with the error until its schema accepts; each call is admitted."""

    def __init__(self, column: LlmStructuredColumn, workflow: Workflow) -> None:
        super().__init__(column, workflow)
        self._json_schema = column.json_schema
        self._schema = json.dumps(column.json_schema, ensure_ascii=False)
        self._attempts = 1 + column.repair_attempts

    async def generate(
        self, inputs: Mapping[str, Any], context: GenerationContext
    ) -> Mapping[str, Any]:
        """Return the answer's value.

        Raises:
            RecordRejected: a template does not fit, no attempt gave what the schema accepts, or an
                answer cannot be checked within its bounds.
        """
        question = await self.messages(inputs)
        messages = question
        reason = ""
        for _ in range(self._attempts):
            answer = await context.models.chat(
                self.alias, messages, response_schema=self._json_schema
            )
            try:
                value = await evaluator().evaluate(
                    "answer", schema=self._schema, answer=answer.text
                )
            except EvaluationRefused as refusal:
                if answer.is_cut:  # another answer under the same bound would be cut as well
                    raise self.cut(answer) from None
                reason = refusal.reason
                # The last answer alone, so that the prompt does not grow with each repair.
                messages = [*question, *self._complaint(answer.text, refusal.detail)]
            except EvaluationFailed as error:
                # Asking again would cost as much again, and the same model answers.
                raise RecordRejected(f"answer_not_checked: {error}") from None
            else:
                return {self.name: value}
        raise RecordRejected(f"invalid_json after {self._attempts} attempts: {reason}")

    def _complaint(self, text: str, detail: str) -> list[dict[str, str]]:
        return [
            # Providers refuse a message without content.
            {"role": "assistant", "content": text[:MOST_QUOTED_CHARACTERS] or "(no answer)"},
            {
                "role": "user",
                "content": f"That answer was refused: {detail}. Answer with JSON alone that"
                f" matches this JSON Schema: {self._schema}",
            },
        ]


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise for a JSON Schema that cannot check answers; blocks.

    Raises:
        EvaluationFailed: what is wrong with it, and where.
    """
    evaluator().evaluate_blocking("schema", schema=json.dumps(schema, ensure_ascii=False))
