"""One turn of one side, in a process of its own: ``python -m bench.compare.turns SCENARIO KIND``.

It runs under the interpreter of a side's environment, so ``forebay`` is that side's library, while
the bench is the candidate's for both. It prints a JSON object with what it measured. Each turn has
a server and processes of its own: what chance gives one of them, a place in memory, ends with it.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any, Final

from bench.compare import turn_handoff, turn_jobs, turn_micro
from bench.harness import loop_name
from forebay.coordinator.server.embedded_files import find_server_binary

TIMED: Final = "timed"
INSTRUCTIONS: Final = "instructions"
TURNS: Final[dict[str, Any]] = {"micro": turn_micro, "handoff": turn_handoff, "jobs": turn_jobs}


def versions() -> dict[str, str]:
    """Return the versions that a measurement depends on besides the commit."""
    server = [str(find_server_binary()), "--version"]
    return {
        "python": platform.python_version(),
        "loop": loop_name(),
        **{name: metadata.version(name) for name in ("arq", "hiredis", "pydantic", "redis")},
        "server": subprocess.run(server, capture_output=True, text=True, check=True).stdout.strip(),
    }


def take_turn(scenario: str, kind: str, *, is_smoke: bool) -> dict[str, Any]:
    """Return the measures of a turn by name, and what was left at its end."""
    turn = TURNS[scenario]
    inputs = turn.SMOKE if is_smoke else turn.FULL
    found: dict[str, Any] = turn.timed(inputs) if kind == TIMED else turn.instructions(inputs)
    return found


def main() -> None:
    """Take a turn and print what was found, with the versions it was found under."""
    scenario, kind, size = sys.argv[1:]
    found = take_turn(scenario, kind, is_smoke=size == "smoke")
    sys.stdout.write(json.dumps(found | {"versions": versions()}) + "\n")


if __name__ == "__main__":
    main()
