"""`forebay classify`: classifies recorded answers of providers, for bug reports."""

from __future__ import annotations

from pathlib import Path

import click

from forebay.workers.providers.recorded import (
    RecordedAnswer,
    recorded_answers,
    replayed,
    stripped,
)

_QUIET = frozenset({"retryable"})


@click.command("classify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--strip", is_flag=True, help="Print the lines without headers that may be secret.")
def classify_command(file: Path, strip: bool) -> None:
    """Print how each recorded answer in FILE is classified.

    FILE has one JSON object a line: host, status, headers, body (the JSON document, a text, or a
    list of texts for a stream), and at, the Unix time of the answer. See CONTRIBUTING.md.
    """
    answers = list(recorded_answers(file.read_text(encoding="utf-8", errors="replace")))
    for number, answer in enumerate(answers, start=1):
        if strip:
            click.echo(stripped(answer).model_dump_json(exclude_defaults=True))
        else:
            click.echo(f"line {number}  {_line_of(answer)}")


def _line_of(answer: RecordedAnswer) -> str:
    found = replayed(answer)
    outcome = found.outcome
    parts = [str(outcome.kind)]
    if outcome.retry_after_seconds is not None:
        parts.append(f"retry after {outcome.retry_after_seconds:g} s")
    if outcome.usage is not None:
        parts.append(f"used {outcome.usage.input_tokens} + {outcome.usage.output_tokens} tokens")
    details = [f"profile {found.profile or 'of any host'}"]
    if outcome.scope is not None:
        details.append(f"scope {outcome.scope}")
    details += [
        f"{name} {value}" for name, value in outcome.diagnostics.items() if name not in _QUIET
    ]
    return f"{answer.host} {answer.status}: {', '.join(parts)}  ({', '.join(details)})"
