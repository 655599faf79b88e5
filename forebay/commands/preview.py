"""`forebay preview`: the first records of a workflow, with each prompt and answer."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from forebay.commands.server_option import url_option
from forebay.contracts.extras import require_extra
from forebay.runtime import DEFAULT_URL, run_stoppable, server_url, stoppable

if TYPE_CHECKING:
    from forebay.contracts.workflow import Workflow
    from forebay.workers.runs.preview import PreviewedCall, PreviewedCell

WIDTH: Final = 78
MOST_CHARACTERS: Final = 2_000
"""Most characters shown of one text; the rest is counted."""


@click.command("preview")
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option(
    "--records",
    type=click.IntRange(1, 1_000),
    default=5,
    show_default=True,
    help="How many records.",
)
@url_option("Server under whose limits the calls are.", default=DEFAULT_URL, show_default=True)
@click.option("--tenant", default="default", show_default=True, help="Whose share they take.")
def preview_command(workflow: Path, records: int, url: str, tenant: str) -> None:
    """Make the first records here, and show each prompt and answer; nothing is written.

    Each call costs what it costs in a run. A call that fails is shown, and not tried again.

    \b
    Exit codes:
      0    every record is whole
      1    an error
      3    a record would be dropped
    """  # noqa: D301 - click reads that character
    require_extra("run", "forebay preview")
    from forebay.workers.runs.workflow_file import load_workflow

    loaded = load_workflow(workflow, environ=os.environ)
    with stoppable(), server_url(url) as server:
        are_whole = run_stoppable(_preview(server, loaded, records, tenant))
    if not are_whole:
        sys.exit(3)


async def _preview(url: str, workflow: Workflow, records: int, tenant: str) -> bool:
    from forebay.workers.runs.model_checks import open_models
    from forebay.workers.runs.preview import preview

    are_whole = True
    async with open_models(url, workflow, tenant=tenant) as models:
        async for number, cells in preview(workflow, models, records):
            click.echo(f"record {number}")
            for cell in cells:
                for line in _lines_of(cell):
                    click.echo(line)
                are_whole = are_whole and cell.problem is None
            click.echo("")
    return are_whole


def _lines_of(cell: PreviewedCell) -> list[str]:
    lines = [line for call in cell.calls for line in _call_lines(cell, call)]
    if cell.problem is not None:
        return [*lines, *_text(f"  {', '.join(cell.column)}: would be dropped: ", cell.problem)]
    if cell.values is None:
        return [f"  {', '.join(cell.column)}: skipped"]
    return lines + [
        line for name, value in cell.values.items() for line in _text(f"  {name} = ", value)
    ]


def _call_lines(cell: PreviewedCell, call: PreviewedCall) -> list[str]:
    lines = [f"  {', '.join(cell.column)}: call of {call.alias}"]
    for message in call.messages:
        lines += _text(f"    {message['role']:<9} ", message["content"])
    if call.answer is None:
        return [*lines, "    no answer"]
    tokens = f"{call.answer.input_tokens} tokens in, {call.answer.output_tokens} out"
    return [*lines, *_text(f"    {'answer':<9} ", call.answer.text), f"    {tokens}"]


def _text(head: str, value: Any) -> list[str]:
    """Return a head and its value, wrapped and cut, with the number of omitted characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    more = len(text) - MOST_CHARACTERS
    if more > 0:
        text = f"{text[:MOST_CHARACTERS]} ... ({more} more characters)"
    lines = [
        part
        for line in text.strip().splitlines() or [""]
        for part in textwrap.wrap(line, max(WIDTH - len(head), WIDTH // 2)) or [""]
    ]
    indent = " " * min(len(head), 14)
    return [f"{head}{lines[0]}", *(f"{indent}{line}".rstrip() for line in lines[1:])]
