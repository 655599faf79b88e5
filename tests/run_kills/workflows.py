"""The workflows whose runs are killed; no two of their cells ask the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SEED_FILE: Final = "seed.csv"
MODULE: Final = "killed_batch"
_HEAD: Final = """
name = "{name}"
buffer_size = {buffer_size}
max_concurrent_row_groups = 3
row_group_admission = "{admission}"
max_tries = 50
max_error_rate = 1
output.path = "{output}"
providers.local.base_url = "{base_url}"
[models.writer]
provider = "local"
model = "mock-large"
max_parallel_requests = 8
max_attempts = 1
[[columns]]
generator = "seed"
names = ["id", "kind"]
path = "seed.csv"
[[columns]]
generator = "llm_text"
name = "text"
model = "writer"
prompt = "Tell of {{{{ id }}}}."
"""
_SKIPPED: Final = """
skip_when = "kind == 'short'"
[[columns]]
generator = "expression"
name = "length"
template = "{{ text | length if text else 0 }}"
propagate_skip = false
"""
_JUDGED: Final = """
[[columns]]
generator = "llm_structured"
name = "mark"
model = "writer"
prompt = "Judge {{ id }}: {{ text }}"
schema = {type = "object", required = ["good"], properties = {good = {type = "boolean"}}}
"""
_BATCHED: Final = f"""
[[columns]]
generator = "python"
name = "rank"
needs = ["text"]
batch = true
function = "{MODULE}:rank"
"""
_DROPPED: Final = """
[[columns]]
generator = "validator"
name = "is_kept"
checks = "text"
expression = "kind != 'bad'"
on_invalid = "drop"
"""
_BATCH_MODULE: Final = """
def rank(records, models):
    order = sorted(record["text"] for record in records)
    return [order.index(record["text"]) for record in records]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """A workflow, and what its provider is like.

    Attributes:
        name: of the workflow.
        columns: those behind the seed and ``text``, as TOML.
        output: the name of its output.
        admission: fixed or additive.
        records: how many.
        buffer_size: records of a row group.
        truth: of the provider.
    """

    name: str
    columns: str
    output: str = "out.jsonl"
    admission: str = "fixed"
    records: int = 40
    buffer_size: int = 5
    truth: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, base_url: str) -> Path:
        """Write the workflow, its seed and its module; return the workflow's file."""
        kinds = ("long", "short", "long", "bad", "long")
        rows = [f"{n},{kinds[n % len(kinds)]}" for n in range(self.records)]
        (folder / SEED_FILE).write_text("\n".join(["id,kind", *rows]) + "\n")
        (folder / f"{MODULE}.py").write_text(_BATCH_MODULE)
        head = _HEAD.format(
            name=self.name,
            buffer_size=self.buffer_size,
            admission=self.admission,
            output=self.output,
            base_url=base_url,
        )
        path = folder / "flow.toml"
        path.write_text(head + self.columns)
        return path


WORKFLOWS: Final = {
    one.name: one
    for one in (
        Killed(name="judged", columns=_JUDGED),
        Killed(name="skipped", columns=_SKIPPED + _JUDGED, output="out.parquet"),
        Killed(name="batched", columns=_JUDGED + _BATCHED, output="out.parquet"),
        Killed(name="salvaged", columns=_JUDGED, truth={"error_rate": 0.2}),
        Killed(name="additive", columns=_JUDGED + _BATCHED, admission="additive"),
        Killed(name="dropped", columns=_DROPPED + _JUDGED + _BATCHED, truth={"error_rate": 0.1}),
    )
}
