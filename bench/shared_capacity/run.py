"""Run the fleets of one row at the same time and write the row's artifact."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import forebay
from bench import report
from bench.harness import Fleet as Processes
from bench.shared_capacity.counts import change_truth
from bench.shared_capacity.fleets import TOLD, Fleet, load_of, servers, watch_all, way_of
from bench.shared_capacity.load import Part, Tally, run_parts
from bench.shared_capacity.rows import Row

MINUTE_SECONDS: Final = 60.0


def run_row(
    processes: Processes, row: Row, ways: Sequence[str], number: int, *, is_smoke: bool = False
) -> dict[str, Any]:
    """Run fleets against instances of a row's provider, all at the same time.

    Args:
        processes: that call, enough for all fleets.
        row: what is run.
        ways: a fleet each.
        number: of the run, for the artifact.
        is_smoke: said in the artifact.

    Returns:
        The artifact.

    Raises:
        InvariantBrokenError: the books of a run do not agree.
    """
    where = report.origin(is_smoke=is_smoke)
    with contextlib.ExitStack() as started:
        fleets = []
        for name in ways:
            way = way_of(name, row)
            folder = started.enter_context(tempfile.TemporaryDirectory(prefix="capacity-"))
            provider = started.enter_context(row.start(Path(folder)))
            urls = started.enter_context(servers(way))
            load = load_of(row, provider)
            fleet = Fleet(way=way, provider=provider, load=load, redis_urls=urls)
            if name == TOLD and row.limit is not None:
                fleet.operator = started.enter_context(forebay.connect(urls[0]))
                fleet.follow(row.limit)
            fleets.append(fleet)
        if "minute" in row.name and not is_smoke:
            _wait_for_minute()
        tallies = _run(processes, row, fleets)
        left = [fleet.check(tally) for fleet, tally in zip(fleets, tallies, strict=True)]
    return {
        "scenario_id": f"shared-capacity/{row.name}",
        **where,
        "inputs": {"row": row.name, "about": row.about, "run": number, "seconds": row.seconds},
        "fleets": {
            fleet.way.name: {
                **_of_tally(tally),
                "windows": fleet.windows,
                "final_request_snapshot": final,
            }
            for fleet, tally, final in zip(fleets, tallies, left, strict=True)
        },
    }


def _run(processes: Processes, row: Row, fleets: Sequence[Fleet]) -> list[Tally]:
    for fleet in fleets:
        fleet.provider.counts.begin()
    ends = threading.Event()
    threads: list[threading.Thread] = []

    def begin(begin_at: float) -> None:
        threads.extend(watch_all(fleets, begin_at, ends))
        changing = threading.Thread(target=_change, args=(row, fleets, begin_at, ends))
        changing.start()
        threads.append(changing)

    parts = [Part(load=fleet.load, way=fleet.way, redis_urls=fleet.redis_urls) for fleet in fleets]
    try:
        return run_parts(processes, parts, begin)
    finally:
        ends.set()
        for thread in threads:
            thread.join()


def _change(row: Row, fleets: Sequence[Fleet], begin_at: float, ends: threading.Event) -> None:
    """Change the providers' truth when the row says so, and register it for the informed fleet."""
    for change in row.changes:
        if ends.wait(max(0.0, begin_at + change.at - time.monotonic())):
            return
        before, limit = row.limit_at(change.at - 1), row.limit_at(change.at)
        for fleet in fleets:
            if limit is not None and before is not None and limit < before:
                fleet.follow(limit)  # first, so that whoever knows is not refused
            if fleet.provider.truth_url is not None:
                change_truth(fleet.provider.truth_url, change.truth)
            if limit is not None and before is not None and limit > before:
                fleet.follow(limit)


def _wait_for_minute() -> None:
    """Wait for the next minute of the clock, by which the provider counts."""
    time.sleep(MINUTE_SECONDS + 0.5 - time.time() % MINUTE_SECONDS)


def _of_tally(tally: Tally) -> dict[str, Any]:
    return {
        "calls": tally.calls,
        "given_up": tally.given_up,
        "finished_at": tally.finished_at,
        "answers": [
            (round(answer.at, 3), answer.status, answer.tenant) for answer in sorted(tally.answers)
        ],
    }


def write(artifact: dict[str, Any], path: Path) -> None:
    """Write an artifact atomically, so that an interrupted run leaves readable ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(artifact) + "\n")
    beside.replace(path)
