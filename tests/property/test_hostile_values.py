"""What a model, a row, a template or a schema supplies costs its own record, and little.

Rules: design 05.

CPU time is the kernel's count: of this process while it works, and of the evaluating process once
it has ended. How long it takes by the clock is nobody's concern here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import time
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any

from hypothesis import given, settings
from jinja2 import TemplateSyntaxError

from forebay.contracts.workflow import OutputSpec, ProviderSpec, Workflow
from forebay.contracts.workflow_columns import LlmStructuredColumn
from forebay.workers.evaluation.evaluator import evaluator
from forebay.workers.generators.base import ChatAnswer, GenerationContext, RecordRejected
from forebay.workers.generators.llm_structured import LlmStructuredGenerator
from forebay.workers.generators.templates import RowTemplate
from tests.property.hostile_values import ANSWERS, TEMPLATES, VALUES, schemas
from tests.property.modes import LONG, SETTINGS

MOST_CPU_SECONDS = 1.0
EXAMPLES = 2_000 if LONG else 60
WORKFLOW = Workflow.model_validate(
    {
        "name": "w",
        "output": OutputSpec(path="out.jsonl"),
        "providers": {"p": ProviderSpec(base_url="http://p")},
        "models": {"m": {"provider": "p", "model": "m", "max_parallel_requests": 1}},
        "file": "w.toml",
        "columns": (),
        "seed": {"path": "/s.csv", "size_bytes": 1, "sha256": "0" * 64, "records": 1},
    }
)


class OneAnswer:
    def __init__(self, text: str) -> None:
        self._text = text

    async def chat(self, *_: object, **__: object) -> ChatAnswer:
        return ChatAnswer(text=self._text, input_tokens=1, output_tokens=1)


@contextlib.contextmanager
def within_a_second() -> Iterator[None]:
    """Check what a block costs this process and the processes that it started."""
    before, of_children = time.process_time(), _cpu_of_children()
    yield
    evaluator().close()  # its processes count once they have ended
    assert time.process_time() - before < MOST_CPU_SECONDS
    assert _cpu_of_children() - of_children < MOST_CPU_SECONDS + 0.3  # 0.3: starting, under load


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def came_of(generating: Awaitable[Any]) -> Any:
    """Return what was made, or why not."""
    try:
        return await generating
    except RecordRejected as rejected:
        assert 0 < len(rejected.reason) <= 200  # noqa: PT017 - either is a good end
        return None


@settings(SETTINGS, max_examples=EXAMPLES)
@given(source=TEMPLATES, values=VALUES)
def test_any_template_over_any_row_makes_a_text_or_a_reason(
    source: str, values: Mapping[str, Any]
) -> None:
    with within_a_second(), contextlib.suppress(TemplateSyntaxError):
        text = asyncio.run(came_of(RowTemplate("prompt", source).render(values)))
        assert text is None or text.encode() is not None


@settings(SETTINGS, max_examples=EXAMPLES)
@given(schema=schemas(), answer=ANSWERS)
def test_any_answer_against_any_schema_is_a_value_or_a_reason(schema: Any, answer: str) -> None:
    column = LlmStructuredColumn.model_validate(
        {
            "generator": "llm_structured",
            "name": "out",
            "model": "m",
            "prompt": "p",
            "schema": schema if isinstance(schema, dict) else {},
            "repair_attempts": 0,
        }
    )
    generator = LlmStructuredGenerator(column, WORKFLOW)
    context = GenerationContext(models=OneAnswer(answer))
    with within_a_second():
        made = asyncio.run(came_of(generator.generate({}, context)))
        json.dumps(made, ensure_ascii=False, allow_nan=False).encode()
