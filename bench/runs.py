"""Runs: six workflows under the strict policy and under the one that borrows.

Rules: design 08, *Scenarios* 6.

Two worker processes make each run, which asks two providers of this machine. The runs of a pair
follow each other, in turns as to which is first. Each run is checked: no lease and no waiter is
left, the providers have seen as many calls as leases were granted, the events of the pool are in
order and every lease ends, and all runs of a workflow write the same.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.figures import Figure, Iterations, of_rounds, ratios
from bench.harness import Outcome, Progress, new_runner, repeat, rotated
from bench.jobs_queue import check_books
from bench.run_pairs import POLICIES, Bench, make_run
from bench.run_scenes import MODULE, SCENES
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection, pid_of
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.idle_gaps import IdleGaps
from forebay.mock_provider.server import MockProviderServer
from forebay.runtime import start_worker, stop_workers

WORKERS: Final = 2
SLOTS: Final = 4
MOST_SLOWER: Final = 1.05
MOST_IDLE_MS: Final = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run of the scenario.

    Attributes:
        records: of each run.
        rounds: pairs that are measured, of each workflow.
        warm_ups: pairs before these, which are not.
    """

    records: int = 80
    rounds: int = 6
    warm_ups: int = 1


FULL: Final = Inputs()
SMOKE: Final = Inputs(records=10, rounds=1, warm_ups=0)


def _pairs(bench: Bench, inputs: Inputs, number: int) -> dict[str, float]:
    measures: dict[str, float] = {}
    for scene in SCENES:
        for policy in rotated([*POLICIES], number):
            measures |= make_run(bench, scene, policy, inputs.records)
    return measures


def figures(found: Iterations) -> list[Figure]:
    """Return the gates of design 08, *Scenarios* and issue 18."""
    rows = [
        Figure(
            name=f"{scene.name}: time of a run that may borrow, to a strict one",
            rounds=ratios(found, f"{scene.name}.borrow.seconds", f"{scene.name}.strict.seconds"),
            aim=MOST_SLOWER if scene.is_neutral else None,
        )
        for scene in SCENES
    ]
    rows += [
        Figure(
            name=f"{scene.name}: a free slot beside ready cells, 99th percentile",
            rounds=of_rounds(found, f"{scene.name}.strict.ready_idle_gap_p99_ms"),
            unit="ms",
            aim=MOST_IDLE_MS,
        )
        for scene in SCENES
    ]
    rows += [
        Figure(
            name=f"{scene.name}: first {what} of a run that may borrow, to a strict one",
            rounds=ratios(
                found, f"{scene.name}.borrow.{measure}", f"{scene.name}.strict.{measure}"
            ),
            aim=1.0,
        )
        for scene in SCENES
        if scene.downstream
        for what, measure in (
            ("downstream cell", "first_downstream"),
            ("row group", "first_row_group"),
        )
    ]
    rows += [
        Figure(
            name=f"calls that provider b gets while a refuses, {policy}",
            rounds=of_rounds(found, f"cooling.{policy}.calls_while_cooling"),
            aim=1.0,
            is_floor=True,
            is_worst=True,
        )
        for policy in POLICIES
    ]
    return rows


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario, all of it on one embedded server.

    Raises:
        InvariantBrokenError: a run left something, lost records, or wrote others than before.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer() as server,
        MockProviderServer(seed=8) as a,
        MockProviderServer(seed=8) as b,
    ):
        with new_runner() as runner:
            runner.run(_configure(server.url))
        options = ("--slots", str(SLOTS), "--allow-path", folder, "--allow-host", "127.0.0.1")
        workers = [
            start_worker(server.url, *options, "--allow-code", MODULE) for _ in range(WORKERS)
        ]
        pids = [worker.pid for worker in workers]
        try:
            with open_sync(parse_url(server.url)) as client:
                bench = Bench(
                    folder=Path(folder),
                    url=server.url,
                    client=client,
                    workers=pids,
                    providers={"a": a, "b": b},
                    gaps=IdleGaps(lambda member: SLOTS if pid_of(member) in pids else 0),
                )
                for number in range(inputs.warm_ups):
                    _pairs(bench, inputs, number)
                iterations = repeat(
                    "runs", inputs.rounds, lambda number: _pairs(bench, inputs, number), progress
                )
        finally:
            stop_workers(workers)
        return Outcome(
            inputs=asdict(inputs),
            iterations=iterations,
            figures=figures(iterations),
            final_request_snapshots=bench.left,
            final_task_snapshots={"default": check_books(server.url)},
            timelines=bench.timelines,
            output_hashes=bench.hashes,
        )


async def _configure(url: str) -> None:
    """Let the pool write all events before a worker joins it."""
    async with await ServerConnection.open(url) as connection:
        pool = TaskAdmissionController(connection)
        await pool.configure(POLICIES["strict"])
        await pool.close()
