"""`forebay plan`: the capacity plan of a workflow, and what its run would take."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from forebay.commands.lines import fitted
from forebay.commands.run_scene import duration
from forebay.commands.server_option import url_option
from forebay.contracts.capacity import AsyncCapacityPlan, CapacitySource, CapacityValue, StaticCap
from forebay.contracts.extras import require_extra
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import PoolReader
from forebay.runtime import run_async, run_stoppable, server_url, stoppable

if TYPE_CHECKING:
    from forebay.contracts.snapshots import GlobalSnapshot
    from forebay.contracts.workflow import Workflow
    from forebay.workers.runs.expectations import Expectation
    from forebay.workers.runs.preview import PreviewedCell

NAME_COLUMNS: Final = 36


@click.command("plan")
@click.argument("workflow", type=click.Path(path_type=Path))
@url_option("Server whose windows and caps are shown as they are now.")
@click.option("--pool", default="default", show_default=True, help="Task pool of that server.")
@click.option(
    "--sample",
    type=click.IntRange(1, 100),
    help="Make so many records to measure tokens, time and cost; each call is paid for.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def plan_command(
    workflow: Path, url: str | None, pool: str, sample: int | None, as_json: bool
) -> None:
    """Show each bound of a run of WORKFLOW with its source, and what a whole run would take.

    A value that is not known says why. Of several sources the first that says a value counts:
    benchmark_override, environment, run_config, dataset_builder, model_metadata, adapter_config,
    engine_internal_config, default; a cap of the server may lower the file's, and never raise it.
    """
    require_extra("run", "forebay plan")
    from forebay.workers.runs.capacity_plan import capacity_plan
    from forebay.workers.runs.expectations import expect
    from forebay.workers.runs.workflow_file import load_workflow

    loaded = load_workflow(workflow, environ=os.environ)
    shards, limits = None, None
    if url is not None:
        with server_url(url) as server:
            shards, limits = run_async(_asked(server, pool, loaded))
    plan = capacity_plan(loaded, shards=shards, pool_limits=limits)
    expected = expect(loaded, plan, _sampled(loaded, url, sample) if sample else [])
    if as_json:
        document = plan.model_dump(mode="json") | {"expected": _expected_json(expected)}
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        for line in _lines_of(plan, expected, loaded, sample):
            click.echo(line)


async def _asked(
    url: str, pool: str, workflow: Workflow
) -> tuple[dict[str, GlobalSnapshot], Mapping[str, int]]:
    resolver = RequestResourceResolver()
    async with await ServerConnection.open(url, only_reads=True) as connection:
        pressure = RequestPressureSnapshotProvider(connection)
        keys = [resolver.resolve(m.provider, m.model) for m in workflow.models.values()]
        shards = {
            str(key.provider_model): await pressure.global_snapshot(key.provider_model, max_rows=0)
            for key in keys
        }
        snapshot = await PoolReader(connection, pool_shard(pool)).snapshot()
    return shards, snapshot.admission.limits


def _sampled(workflow: Workflow, url: str | None, records: int) -> list[list[PreviewedCell]]:
    from forebay.workers.runs.model_checks import open_models
    from forebay.workers.runs.preview import preview

    async def make(server: str) -> list[list[PreviewedCell]]:
        async with open_models(server, workflow) as models:
            return [cells async for _, cells in preview(workflow, models, records)]

    with stoppable(), server_url(url or "embedded://") as server:
        return run_stoppable(make(server))


def _expected_json(expected: Expectation) -> dict[str, Any]:
    names = ("calls", "input_tokens", "output_tokens", "seconds", "cost")
    return {name: getattr(expected, name).model_dump(mode="json") for name in names}


def _lines_of(
    plan: AsyncCapacityPlan, expected: Expectation, workflow: Workflow, sample: int | None
) -> list[str]:
    lines = []
    for part, title in (
        (plan.configured, "configured"),
        (plan.runtime_snapshot, "on the server now"),
        (plan.observed_maxima, "observed maxima"),
    ):
        values = [
            row for name in type(part).model_fields for row in _rows(name, getattr(part, name))
        ]
        lines += [title, *_known_and_missing(values)]
    of = f"measured on {sample} of them" if sample else "of which none was made"
    lines.append(f"expected of {workflow.record_count} records, {of}")
    time = _as_words(expected.seconds, duration)
    cost = _as_words(expected.cost, lambda value: f"{value:.4f} {workflow.currency}")
    rows: list[tuple[str, CapacityValue[Any]]] = [
        ("calls" if sample else "calls, at least", expected.calls),
        ("input tokens", expected.input_tokens),
        ("output tokens", expected.output_tokens),
        ("time at the caps, at least", time),
        ("cost", cost),
    ]
    return [*lines, *_known_and_missing([(name, value, "") for name, value in rows])]


def _as_words(value: CapacityValue[float], words: Callable[[float], str]) -> CapacityValue[str]:
    if value.value is None:
        return CapacityValue(source=value.source, missing_reason=value.missing_reason)
    return CapacityValue(value=words(value.value), source=value.source)


Row = tuple[str, CapacityValue[Any], str]
"""Name, value and note of one line of the plan."""


def _rows(name: str, value: Any) -> Iterator[Row]:
    match value:
        case CapacityValue():
            yield name, value, ""
        case StaticCap():
            raw = ", ".join(f"{alias} {cap}" for alias, cap in value.raw_caps.items())
            yield name, value.cap, f"{value.merge_rule}: {raw}"
        case str():
            yield name, CapacityValue(value=value, source=CapacitySource.RUN_CONFIG), ""
        case dict():
            for key, one in value.items():
                yield from _rows(f"{name} {key}", one)


def _known_and_missing(rows: Sequence[Row]) -> list[str]:
    """Return the known values, then the names of the missing ones by reason."""
    lines: list[str] = []
    names: dict[str, list[str]] = {}
    for name, value, note in rows:
        if value.missing_reason is not None:
            names.setdefault(value.missing_reason, []).append(name)
        else:
            lines += _line(name, value, note)
    for reason, missing in names.items():
        lines += fitted([f"not known: {reason}"], first="  ", indent="    ")
        lines += fitted([f"{name}," for name in missing[:-1]] + missing[-1:], first="    ")
    return lines


def _line(name: str, value: CapacityValue[Any], note: str) -> list[str]:
    shown = value.value
    if isinstance(shown, dict):
        shown = ", ".join(f"{key} {one}" for key, one in shown.items())
    elif isinstance(shown, int):
        shown = f"{shown:,}"
    source = value.source.value
    if value.fallback_from is not None:
        source += f", not {value.fallback_from.value}"
    return fitted([f"{name:<{NAME_COLUMNS}}", f"{shown}  ({source})", note], first="  ")
