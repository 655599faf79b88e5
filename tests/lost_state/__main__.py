"""``make lost-state``: a server loses state in every way under load, checked from outside."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from bench.reliability.sections import LOST_STATE_OUT, measured_on
from forebay.runtime import run_stoppable
from tests.lost_state.matrix import SENTINEL, Given, Seen, fail_over, run


def main() -> int:
    """Lose state in every way, print and keep the results; return 1 if a promise was broken."""
    whole = Given()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--call-seconds", type=float, default=whole.call_seconds)
    parser.add_argument("--ttl-seconds", type=float, default=whole.ttl_seconds)
    parser.add_argument("--losses", nargs="+", choices=[*whole.losses, SENTINEL], metavar="LOSS")
    asked = parser.parse_args()
    names = asked.losses or [*whole.losses, SENTINEL]
    given = Given(
        call_seconds=asked.call_seconds,
        ttl_seconds=asked.ttl_seconds,
        losses=tuple(name for name in names if name != SENTINEL),
    )
    seen = run_stoppable(run(given)) if given.losses else []
    if SENTINEL in names:
        seen.append(run_stoppable(fail_over(given)))
    for one in seen:
        print(_line(one))
    LOST_STATE_OUT.parent.mkdir(exist_ok=True)
    found = {
        "measured_on": measured_on(),
        "call_seconds": given.call_seconds,
        "ttl_seconds": given.ttl_seconds,
        "seen": [asdict(one) for one in seen],
    }
    LOST_STATE_OUT.write_text(json.dumps(found, indent=1) + "\n")
    broken = sum(bool(one.over) for one in seen)
    print(f"{len(seen)} losses, {broken} of them with more calls than the cap at the provider")
    return 1 if broken else 0


def _line(seen: Seen) -> str:
    if not seen.was_there:
        return f"{seen.loss:45} nothing to bring back"
    return (
        f"{seen.loss:45} back after {seen.back_seconds:5.2f} s, at most {seen.most} at once,"
        f" {seen.expired} leases lost{''.join('; ' + what for what in seen.over)}"
    )


if __name__ == "__main__":
    sys.exit(main())
