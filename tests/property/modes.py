"""How long the property tests look, and what they tell meanwhile.

``FOREBAY_PROPERTY=long`` (``make property-long``) runs many more examples, other ones each time.
``FOREBAY_PROPERTY=shrink`` looks for the shortest history that fails, which takes minutes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Final

import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

MODE: Final = os.environ.get("FOREBAY_PROPERTY", "ci")
LONG: Final = MODE == "long"
EXAMPLES_PER_LINE: Final = 200

SETTINGS: Final = settings(
    stateful_step_count=50,
    deadline=None,
    derandomize=not LONG,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate] if MODE == "ci" else list(Phase),
)


def explore(
    what: str,
    machine: Callable[[redis.Redis], RuleBasedStateMachine],
    client: redis.Redis,
    examples: int,
) -> None:
    """Run histories of a state machine that drives the scripts on this client's server."""
    progress = Progress(what, examples)

    def begin() -> RuleBasedStateMachine:
        progress.example()
        return machine(client)

    run_state_machine_as_test(begin, settings=settings(SETTINGS, max_examples=examples))


class Progress:
    """Tells how far a long run is, its rate, and the time left; nothing in a short one."""

    def __init__(self, what: str, examples: int) -> None:
        self._what = what
        self._examples = examples
        self._done = 0
        self._began_at = time.monotonic()

    def example(self) -> None:
        """One more example begins."""
        if LONG and self._done and self._done % EXAMPLES_PER_LINE == 0:
            rate = self._done / (time.monotonic() - self._began_at)
            left = max(0, self._examples - self._done) / rate / 60
            sys.stderr.write(
                f"{self._what}: {self._done:,} of {self._examples:,} examples,"
                f" {rate:.1f} per s, {left:.1f} min left\n"
            )
        self._done += 1
