"""``make run-kills``: runs whose processes are killed at instants that a seed decides."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.reliability.sections import measured_on
from forebay.runtime import run_stoppable
from tests.run_kills.program import Outcome, compared, run
from tests.run_kills.scene import Kill, Kind, Policy
from tests.run_kills.workflows import WORKFLOWS, Killed

OUT: Final = Path("out/run-kills")
LONGEST_DELAY_SECONDS: Final = 0.1
DRAWN: Final[tuple[tuple[Policy, tuple[Kind, ...]], ...]] = (
    ("always", ("driver", "driver", "workers", "server", "server")),
    ("always", ("driver", "server", "everything", "server")),
    ("everysec", ("machine", "driver", "machine", "workers", "machine")),
)
"""Kills of the runs of a workflow. A task that three killed workers had is given up: two may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run under kills.

    Attributes:
        name: for people.
        seed: of the run.
        kills: in the order of their calls.
        dies_at: of the drivers in their order, the change in the folder before which each dies.
        policy: how the server syncs its file.
    """

    name: str
    seed: int
    kills: list[Kill]
    dies_at: list[int]
    policy: Policy = "always"


def cases(rng: random.Random, plain: Outcome) -> Iterator[Case]:
    """Return the runs under kills of a workflow, whose undisturbed run is known."""
    for policy, kinds in DRAWN:
        at = sorted(rng.randrange(1, plain.calls) for _ in kinds)
        drawn = rng.sample(kinds, len(kinds))
        kills = [
            Kill(
                kind=kind,
                after_calls=calls,
                delay_seconds=rng.uniform(0.0, LONGEST_DELAY_SECONDS),
            )
            for kind, calls in zip(drawn, at, strict=True)
        ]
        yield Case(
            name=f"{policy}: {', '.join(drawn)}",
            seed=rng.randrange(2**31),
            kills=kills,
            dies_at=[],
            policy=policy,
        )
    # Each driver goes on where the one before died; the last changes are those of the run's end.
    dies_at = [rng.randrange(1, max(2, plain.changes // 3)) for _ in range(3)]
    yield Case(name=f"drivers die before changes {dies_at}", seed=1, kills=[], dies_at=dies_at)


def ends(plain: Outcome, most: int) -> Iterator[Case]:
    """Return runs whose driver dies before one of its last changes, each of them once."""
    for change in range(plain.changes, max(0, plain.changes - most), -1):
        yield Case(
            name=f"the driver dies before change {change} of {plain.changes}",
            seed=change,
            kills=[],
            dies_at=[change],
        )


async def run_all(
    folder: Path, workflow: Killed, rng: random.Random, last_changes: int
) -> list[dict[str, object]]:
    """Run a workflow undisturbed and under kills; print and return what came of it."""
    plain = await run(folder / "plain", workflow, seed=0)
    found = []
    print(
        f"{workflow.name}: {plain.calls} calls, {plain.changes} changes of the driver", flush=True
    )
    if plain.differences:
        found.append({"workflow": workflow.name, "differences": plain.differences})
        print(f"  undisturbed: {plain.differences}")
    for number, case in enumerate([*cases(rng, plain), *ends(plain, last_changes)]):
        began = time.monotonic()
        place = folder / str(number)
        killed = await run(
            place,
            workflow,
            seed=case.seed,
            kills=case.kills,
            dies_at=case.dies_at,
            policy=case.policy,
        )
        differences = compared(plain, killed)
        found.append(
            {
                "workflow": workflow.name,
                "case": case.name,
                "killed": dict(killed.killed),
                "calls": killed.calls,
                "paid_again": killed.paid_again,
                "seconds": round(time.monotonic() - began, 1),
                "differences": differences,
            }
        )
        words = "; ".join(differences) or "no difference"
        print(f"  {case.name}: {killed.paid_again} calls paid for again, {words}", flush=True)
        if differences:
            shutil.copytree(place, OUT / workflow.name / str(number), dirs_exist_ok=True)
    return found


async def main(folder: Path, names: list[str], seed: int) -> list[dict[str, object]]:
    """Run all workflows."""
    found = []
    for place, name in enumerate(names):
        rng = random.Random(f"{seed}/{name}")
        last_changes = 16 if place < 2 else 0
        found += await run_all(folder / name, WORKFLOWS[name], rng, last_changes)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="equal seeds, equal kills [1]")
    parser.add_argument("--workflows", nargs="+", choices=[*WORKFLOWS], default=[*WORKFLOWS])
    asked = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fb-kills-", ignore_cleanup_errors=True) as name:
        seen = run_stoppable(main(Path(name), asked.workflows, asked.seed))
    kinds: Counter[str] = Counter()
    for one in seen:
        kinds.update(one.get("killed", {}))  # type: ignore[arg-type]
    bad = [one for one in seen if one["differences"]]
    print(f"{len(seen)} runs, kills: {dict(kinds)}; runs with a difference: {len(bad)}")
    text = {"measured_on": measured_on(), "seed": asked.seed, "runs": seen}
    (OUT / f"seed-{asked.seed}.json").write_text(json.dumps(text, indent=1) + "\n")
    sys.exit(1 if bad else 0)
