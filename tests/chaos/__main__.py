"""``make chaos``: runs, arq jobs and SDK callers under faults that a seed decides."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from bench.reliability.sections import measured_on
from forebay.runtime import run_stoppable
from tests.chaos.program import Found, run
from tests.chaos.schedule import KINDS, Fault, schedule
from tests.chaos.start import Given

OUT = Path("out/chaos")


def main() -> int:
    """Run the chaos, print and keep faults and differences; return 1 if there is a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of faults [600]")
    parser.add_argument("--seed", type=int, default=1, help="equal seeds, equal faults [1]")
    parser.add_argument("--per-minute", type=float, default=20.0, help="faults [20]")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=[*KINDS],
        default=[*KINDS],
        metavar="KIND",
        help=f"of faults [all: {' '.join(KINDS)}]",
    )
    asked = parser.parse_args()
    faults = schedule(asked.seed, asked.seconds, asked.per_minute, asked.kinds)
    OUT.mkdir(parents=True, exist_ok=True)
    kept = OUT / f"seed-{asked.seed}"
    kept.with_suffix(".schedule.json").write_text(_text([asdict(fault) for fault in faults]))
    with tempfile.TemporaryDirectory(prefix="fb-chaos-") as folder:
        given = Given(seconds=asked.seconds, seed=asked.seed)
        try:
            found = run_stoppable(run(Path(folder), given, faults))  # so that no process is left
        except BaseException:
            _keep(Path(folder), kept)
            raise
        survived = _survived(found, faults)
        _report(found, survived)
        if found.differences:
            _keep(Path(folder), kept)
            print(f"it replays: python -m tests.chaos {' '.join(sys.argv[1:])}")
            print(f"what the observers read is kept in {kept}")
    found_text = {
        "measured_on": measured_on(),
        "given": vars(asked),
        "injected": found.injected,
        "survived": survived,
        "counts": found.counts,
        "differences": found.differences,
    }
    kept.with_suffix(".found.json").write_text(_text(found_text))
    return 1 if found.differences else 0


def _survived(found: Found, faults: list[Fault]) -> Counter[str]:
    """Count the faults without a difference while they lasted and ten seconds after."""
    return Counter(
        fault.kind
        for fault in faults
        if not any(fault.at <= at <= fault.at + fault.seconds + 10 for at, _ in found.differences)
    )


def _report(found: Found, survived: Counter[str]) -> None:
    print(f"{'fault':30} {'injected':>8} {'survived':>8}")
    for kind, count in sorted(found.injected.items()):
        print(f"{kind:30} {count:8} {survived[kind]:8}")
    print(f"{'all':30} {found.injected.total():8} {survived.total():8}")
    for name, count in found.counts.items():
        print(f"{name}: {count}")
    print(f"differences: {len(found.differences)}")
    for at, what in found.differences:
        print(f"  at {at:8.2f} s: {what}")


def _keep(folder: Path, kept: Path) -> None:
    kept.mkdir(exist_ok=True)
    for file in folder.iterdir():
        if file.is_file():
            (kept / file.name).write_bytes(file.read_bytes())


def _text(value: object) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"


if __name__ == "__main__":
    sys.exit(main())
