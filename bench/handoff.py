"""Hand-off: a cap, hundreds of waiters over several processes, short holds.

Rules: design 08, *Scenarios* 2.

Each round measures Forebay, its peers (bench/peers: an in-process semaphore, a bare FIFO list,
self-limiters) and bare PUBLISH hand-offs, one after the other in a rotating order, so that a slow
moment of the machine meets all.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Final, NamedTuple

from bench.figures import Figure, Iterations, in_ms, middle, of_rounds, p95, ratios
from bench.handoff_processes import PublishTurn, Turn, serve
from bench.harness import (
    STARTUP_SECONDS,
    Fleet,
    InvariantBrokenError,
    Outcome,
    Progress,
    final_snapshots,
    repeat,
    rotated,
)
from bench.holds import Hold, summarize
from bench.peers.limiter import LimiterPeer, Setting
from bench.peers.registry import HAND_OFFS, installed, missing
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.server.embedded import EmbeddedServer

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="handoff")
RATE_AIMS: Final = {"fifo": 0.96, "self_limiters": 1.0}
"""The least ratio of Forebay's grants a second to a peer's, by peer; other peers have no aim."""
PROBES: Final = ("publish_idle", "publish_loaded")


class Case(NamedTuple):
    """A case of the hand-off: number of processes, and arrival of the waiters.

    Attributes:
        processes: how many.
        arrival_seconds: between two waiters' first calls, which come in turn from each process, so
            that slots are handed on between processes. With 0 each process's waiters queue en bloc,
            and fewer slots are (``crossing_share`` says how many).
    """

    processes: int
    arrival_seconds: float

    def __str__(self) -> str:
        arrival = "one_per_ms" if self.arrival_seconds else "at_once"
        return f"{self.processes}_processes_{arrival}"


ONE_PROCESS: Final = Case(1, 0.001)
TWO_PROCESSES: Final = Case(2, 0.001)
CASES: Final = (ONE_PROCESS, TWO_PROCESSES, Case(4, 0.001), Case(2, 0), Case(4, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run of the scenario.

    Attributes:
        cap: the most holders.
        waiters: tasks that acquire, hold and release without a pause, over all processes.
        hold_seconds: what each hold sleeps.
        rounds: how often everything has its turn in each case.
        settle_seconds: not counted, after the last arrival.
        seconds: the counted time of each limiter's turn.
        probe_seconds: the counted time of each turn of bare PUBLISH.
    """

    cap: int = 8
    waiters: int = 200
    hold_seconds: float = 0.005
    rounds: int = 5
    settle_seconds: float = 0.25
    seconds: float = 2.0
    probe_seconds: float = 0.75


FULL: Final = Inputs()
SMOKE: Final = Inputs(waiters=24, rounds=1, settle_seconds=0.02, seconds=0.1, probe_seconds=0.1)


def setting_of(url: str, inputs: Inputs) -> Setting:
    """Return the settings of each process's limiters; one process may get all the waiters."""
    return Setting(url=url, cap=inputs.cap, callers=inputs.waiters, provider_model=PROVIDER_MODEL)


def measure_holds(
    fleet: Fleet, limiter: str, case: Case, inputs: Inputs
) -> tuple[dict[str, float], int]:
    """Give a limiter its turn; return its measures, and how many holds there were in all.

    Raises:
        InvariantBrokenError: there were more holders at once than the cap.
    """
    # a semaphore has one process: it gets all the waiters, the others rest
    processes = 1 if limiter == "semaphore" else case.processes
    start = time.monotonic() + STARTUP_SECONDS
    counted_from = start + inputs.waiters * case.arrival_seconds + inputs.settle_seconds
    end = counted_from + inputs.seconds
    turns = {
        process: Turn(
            limiter=limiter,
            waiters=range(process, inputs.waiters, processes),
            hold_seconds=inputs.hold_seconds,
            arrival_seconds=case.arrival_seconds,
            start=start,
            end=end,
        )
        for process in range(processes)
    }
    holds: list[Hold] = [hold for answer in fleet.ask(turns) for hold in answer]
    found = summarize(holds, cap=inputs.cap, waiters=inputs.waiters, start=counted_from, end=end)
    if found["max_holders"] > inputs.cap:
        raise InvariantBrokenError(
            f"{limiter} had {found['max_holders']:g} holders at once, expected at most"
            f" {inputs.cap}; this is a defect, please report it."
        )
    return found, len(holds)


def _measure_limiter(fleet: Fleet, limiter: str, case: Case, inputs: Inputs) -> dict[str, float]:
    found, _holds = measure_holds(fleet, limiter, case, inputs)
    return found


def _measure_publish(fleet: Fleet, probe: str, case: Case, inputs: Inputs) -> dict[str, float]:
    """Measure messages to another process: one task's alone, or as many tasks' as there are slots.

    The loaded tasks sleep as long as a hold, so they send about as many messages as the limiters.
    """
    tasks = [0] * case.processes
    for slot in range(inputs.cap if probe == "publish_loaded" else 1):
        tasks[slot % case.processes] += 1
    start = time.monotonic() + STARTUP_SECONDS
    counted_from = start + inputs.settle_seconds
    turns = {
        process: PublishTurn(
            tasks=tasks[process],
            to_process=(process + 1) % case.processes,
            pause_seconds=inputs.hold_seconds,
            start=start,
            counted_from=counted_from,
            end=counted_from + inputs.probe_seconds,
        )
        for process in range(case.processes)
    }
    delays = [delay for answer in fleet.ask(turns) for delay in answer]
    rate = {"messages_per_second": len(delays) / inputs.probe_seconds}
    return rate | in_ms(delays, {"gap_median_ms": median, "gap_p95_ms": p95})


def _round(fleet: Fleet, inputs: Inputs, number: int) -> dict[str, float]:
    measures = {name: partial(_measure_limiter, fleet, name) for name in installed(HAND_OFFS)}
    measures |= {name: partial(_measure_publish, fleet, name) for name in PROBES}
    found = {}
    for case in rotated(CASES, number):
        for name in rotated(list(measures), number):
            for measure, value in measures[name](case, inputs).items():
                found[f"{case}.{name}.{measure}"] = value
    return found


def _figures_of(case: Case, found: Iterations) -> list[Figure]:
    def name_of(what: str) -> str:
        arrival = "one a ms" if case.arrival_seconds else "all at once"
        plural = "processes" if case.processes > 1 else "process"
        return f"hand-off, {case.processes} {plural}, {arrival}: {what}"

    def rate(peer: LimiterPeer) -> Figure:
        ours, theirs = (f"{case}.{one}.grants_per_second" for one in ("forebay", peer.name))
        return Figure(
            name=name_of(f"grants, to {peer.said}"),
            rounds=ratios(found, ours, theirs),
            aim=RATE_AIMS.get(peer.name),
            is_floor=True,
            beside=f"{middle(found, ours, '/s')} / {middle(found, theirs, '/s')}",
        )

    def gap(probe: str) -> Figure:
        ours, bare, fifo = (f"{case}.{one}.gap_median_ms" for one in ("forebay", probe, "fifo"))
        return Figure(
            name=name_of(f"median gap, to bare {probe.replace('_', ', ')}"),
            rounds=ratios(found, ours, bare),
            aim=3.0,
            beside=f"{middle(found, ours, 'ms')} / {middle(found, bare, 'ms')};"
            f" fifo {middle(found, fifo, 'ms')}",
        )

    fairness, holders = (f"{case}.{{}}.{measure}" for measure in ("jain_index", "max_holders"))
    most = max(of_rounds(found, holders.format("fifo")), default=0.0)
    return [
        *(rate(peer) for peer in HAND_OFFS[1:]),
        *(gap(probe) for probe in PROBES),
        Figure(
            name=name_of("Jain's index over waiters"),
            rounds=of_rounds(found, fairness.format("forebay")),
            aim=0.998,
            is_floor=True,
            beside=f"fifo {middle(found, fairness.format('fifo'), '')}",
        ),
        Figure(
            name=name_of("most holders"),
            rounds=of_rounds(found, holders.format("forebay")),
            aim=8,
            is_worst=True,
            beside=f"fifo {most:g}",
        ),
    ]


def figures(found: Iterations) -> list[Figure]:
    """Return the figures of a hand-off with the aims of issues 3 and 15."""
    one, two = (f"{case}.forebay.grants_per_second" for case in (ONE_PROCESS, TWO_PROCESSES))
    return [
        *(figure for case in CASES for figure in _figures_of(case, found)),
        Figure(
            name="hand-off: grants of 2 processes, to 1",
            rounds=ratios(found, two, one),
            aim=1.0,
            is_floor=True,
            beside=f"{middle(found, two, '/s')} / {middle(found, one, '/s')}",
        ),
    ]


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario on an embedded server.

    Raises:
        InvariantBrokenError: more holders than the cap, or something was left behind.
    """
    for sentence in missing(HAND_OFFS):
        progress(f"handoff: {sentence}")
    with EmbeddedServer() as server:
        processes = max(case.processes for case in CASES)
        setting = setting_of(server.url, inputs)
        with Fleet(processes, serve, setting, tuple(installed(HAND_OFFS))) as fleet:
            iterations = repeat(
                "handoff", inputs.rounds, lambda number: _round(fleet, inputs, number), progress
            )
        snapshots = final_snapshots(server.url, PROVIDER_MODEL)
    return Outcome(
        inputs=asdict(inputs) | {"cases": [case._asdict() for case in CASES]},
        iterations=iterations,
        figures=figures(iterations),
        final_request_snapshots=snapshots,
    )
