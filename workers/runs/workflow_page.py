"""Prints docs/workflow.md from the models: ``python -m forebay.workers.runs.workflow_page``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from forebay.contracts.settings import RequestAdmissionTuningConfig, RequestQuotas
from forebay.contracts.workflow import ModelSpec, OutputSpec, ProviderSpec, WorkflowSpec
from forebay.contracts.workflow_column_kinds import COLUMN_TYPES
from forebay.workers.runs.model_tables import cell, default_of, meanings_of, type_of

_HEAD: Final = """# Workflow files

Made from the models in `contracts/` by `python -m forebay.workers.runs.workflow_page`; a test
keeps it current. A workflow is a file in TOML, or in YAML with the extra `yaml`: the same keys.
[examples/support_triage](../examples/support_triage/README.md) is a whole one, and
`forebay check workflow.toml` tells all mistakes of a file at once, with their lines. A key that is
not listed here is refused. *None* in a meaning stands for a key that is left out.

A seed in CSV has a header line. Its fields are parted by `delimiter`, by default the one of comma,
semicolon, tab and `|` at which the header parts into `names`. [runs.md](runs.md) says how runs end,
[window.md](window.md) what the numbers of `tuning` do.
"""
PARTS: Final[tuple[tuple[str, str, type[BaseModel]], ...]] = (
    ("The file", "", WorkflowSpec),
    ("`[output]`", "", OutputSpec),
    ("`[providers.NAME]`", "", ProviderSpec),
    ("`[models.ALIAS]`", "", ModelSpec),
    ("`[models.ALIAS.tuning]`", "", RequestAdmissionTuningConfig),
    ("`[models.ALIAS.quotas]`", "", RequestQuotas),
)
_MEANINGS: Final[Mapping[str, str]] = {
    "columns": "the columns, in the order of the output; `generator` says of which kind each is.",
    "path": "where the records go: JSON Lines (`.jsonl`) or Parquet (`.parquet`).",
    "generator": "the kind of the column.",
    "name": "the one column it makes.",
    "template": "template over other columns.",
    **dict.fromkeys(("low", "high"), "bounds of `uniform` and `integer`."),
    **dict.fromkeys(("mean", "stddev"), "of `normal`."),
    **dict.fromkeys(("start", "end"), "first and last day of `date`."),
    "values": "what `category` draws from.",
    "weights": "of `category`: a share for each of `values`.",
}
"""Of keys that no docstring describes, or that one describes with others."""


EXAMPLES: Final[Mapping[str, str]] = {
    "additive_increase_step": "1",
    "api_key_env": '"OPENAI_API_KEY"',
    "base_url": '"https://api.openai.com/v1"',
    "batch": "true",
    "buffer_size": "40",
    "bursts": "{ requests_per_minute = 10 }",
    "checks": '"summary"',
    "columns": '[{ generator = "sampler", name = "id", kind = "uuid" }]',
    "cooldown_seconds": "2.0",
    "currency": '"EUR"',
    "delimiter": '";"',
    "end": "2026-12-31",
    "exclusive": "true",
    "expression": '"summary | length < 400"',
    "function": '"my_package.enrich:run"',
    "high": "10",
    "initial_limit": "8",
    "input_price": "1.25",
    "json_schema": "false",
    "key": '["ticket_id"]',
    "kind": '"openai"',
    "low": "1",
    "max_admitted_rows": "20_000",
    "max_answer_bytes": "65_536",
    "max_attempts": "4",
    "max_concurrent_row_groups": "4",
    "max_error_rate": "0.2",
    "max_parallel_requests": "32",
    "max_retries": "1_000",
    "max_tokens": "200",
    "max_tries": "3",
    "mean": "0.5",
    "min_error_window": "50",
    "model": '"gpt-5"',
    "models": '["judge"]',
    "multiplicative_decrease_factor": "0.5",
    "name": '"summary"',
    "names": '["ticket_id", "message"]',
    "needs": '["message"]',
    "on_cut": '"keep"',
    "on_invalid": '"retry"',
    "output": '{ path = "out/tickets.jsonl" }',
    "output_price": "10.0",
    "params": "{ most_characters = 160 }",
    "path": '"messages.csv"',
    "prompt": '"Summarise: {{ message }}"',
    "propagate_skip": "false",
    "provider": '"openai"',
    "providers": '{ openai = { base_url = "https://api.openai.com/v1" } }',
    "quotas": "{ requests_per_minute = 60 }",
    "records": "1000",
    "repair_attempts": "2",
    "requests_per_day": "10_000",
    "requests_per_minute": "60",
    "round_successes": "24",
    "row_group_admission": '"additive"',
    "rule": '"steady"',
    "schema": '{ type = "object" }',
    "seed": "7",
    "skip_when": "\"triage.urgency == 'low'\"",
    "start": "2026-01-01",
    "startup_ramp_seconds": "30.0",
    "stddev": "0.1",
    "successes_until_increase": "25",
    "successes_until_try": "150",
    "system": '"You triage tickets."',
    "temperature": "0.3",
    "template": '"desk-{{ triage.category }}"',
    "text": '"{{ title }}"',
    "timeout_seconds": "30.0",
    "tokens_per_day": "5_000_000",
    "tokens_per_minute": "90_000",
    "tries": "3",
    "tuning": '{ rule = "aimd" }',
    "values": '["mail", "chat"]',
    "weights": "[3, 1]",
}
"""A value of each key, as TOML."""
_OF_A_PART: Final[Mapping[tuple[type[BaseModel], str], str]] = {
    (WorkflowSpec, "name"): '"support_triage"',
    (
        WorkflowSpec,
        "models",
    ): '{ judge = { provider = "openai", model = "gpt-5", max_parallel_requests = 8 } }',
    (OutputSpec, "path"): '"out/tickets.jsonl"',
}
_OF_A_KIND: Final[Mapping[str, str]] = {"sampler": '"uniform"'}


def example_of(model: type[BaseModel], key: str) -> str:
    """Return a value of a key of a model, as TOML."""
    kind = next((name for name, of in COLUMN_TYPES.items() if of is model), "")
    if key == "generator":
        return f'"{kind}"'
    if key == "kind" and kind in _OF_A_KIND:
        return _OF_A_KIND[kind]
    if key == "model" and kind:
        return '"judge"'
    return _OF_A_PART.get((model, key), EXAMPLES[key])


def workflow_page() -> str:
    """Return the page."""
    columns = [
        (f'`[[columns]]` with `generator = "{name}"`', _first_line(model), model)
        for name, model in COLUMN_TYPES.items()
    ]
    parts = (*PARTS, *columns)
    return "\n".join([_HEAD, *(line for part in parts for line in _section(*part))])


def _first_line(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").partition("\n")[0].removesuffix(".")


def _section(title: str, text: str, model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    meanings = meanings_of(model)
    yield f"## {title}\n"
    if text:
        yield f"{text}.\n"
    yield "| key | type | default | example | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    required = schema.get("required", ())
    for key, value in schema["properties"].items():
        meaning = meanings.get(key) or meanings.get(f"json_{key}") or _MEANINGS[key]
        default = "required" if key in required else default_of(value)
        shown = (f"`{key}`", type_of(value, schema), default, f"`{example_of(model, key)}`")
        yield f"| {' | '.join(shown)} | {cell(meaning)} |"
    yield ""


if __name__ == "__main__":
    print(workflow_page(), end="")  # noqa: T201 - its one purpose
