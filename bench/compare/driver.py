"""Measures two sides in alternating turns, and pairs their results."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.compare.callgrind import why_not
from bench.compare.errors import ComparisonError
from bench.compare.sides import Side
from bench.compare.turns import INSTRUCTIONS, TIMED
from bench.harness import Progress

LONGEST_TURN_SECONDS: Final = 300.0
COUNTED_PAIRS: Final = 6
"""The fewest that have an interval: what is counted spreads by a percent or so."""


@dataclass(slots=True)
class Pairs:
    """The paired results of a scenario's turns.

    Attributes:
        iterations: of each pair the measures, ``<role>.<measure>``, and ``wall_time_seconds``.
        versions: what each role's turns ran under.
        request_snapshots: what each role's last turn left of its shards, by role.
        task_snapshots: the same of its pools.
        not_counted: why instructions were not counted; None where they were.
    """

    iterations: list[dict[str, float]] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    request_snapshots: dict[str, Any] = field(default_factory=dict)
    task_snapshots: dict[str, Any] = field(default_factory=dict)
    not_counted: str | None = None

    def values(self, role: str, measure: str) -> tuple[float, ...]:
        """Return a measure of one side, in the pairs in which both sides have it."""
        return tuple(one[f"{role}.{measure}"] for one in self._complete(measure))

    def ratios(self, measure: str) -> tuple[float, ...]:
        """Return candidate to baseline, pair by pair."""
        return tuple(
            one[f"candidate.{measure}"] / one[f"baseline.{measure}"]
            for one in self._complete(measure)
        )

    def _complete(self, measure: str) -> list[dict[str, float]]:
        ours, theirs = f"candidate.{measure}", f"baseline.{measure}"
        return [one for one in self.iterations if ours in one and one.get(theirs)]


class Driver:
    """Gives both sides their turns.

    Args:
        sides: baseline and candidate.
        folder: holds the ``bench`` that measures both.
        is_smoke: turns are tiny, and so are their numbers.
        progress: told after each pair.
    """

    def __init__(
        self, sides: tuple[Side, Side], folder: Path, progress: Progress, *, is_smoke: bool
    ) -> None:
        self._sides = sides
        self._folder = folder
        self._progress = progress
        self._is_smoke = is_smoke

    def compare(self, scenario: str, count: int) -> Pairs:
        """Take turns ``count`` times, and a few times more under callgrind where it can count.

        Raises:
            ComparisonError: a side failed; under callgrind alone, that is said by ``not_counted``.
        """
        pairs = Pairs()
        self._take_pairs(pairs, scenario, TIMED, count)
        pairs.not_counted = why_not()
        if pairs.not_counted is None:
            try:
                counted = 1 if self._is_smoke else COUNTED_PAIRS
                self._take_pairs(pairs, scenario, INSTRUCTIONS, counted)
            except ComparisonError as error:  # valgrind lacks a processor's newest instructions
                pairs.not_counted = error.message
        return pairs

    def _take_pairs(self, pairs: Pairs, scenario: str, kind: str, count: int) -> None:
        began = time.monotonic()
        for number in range(1, count + 1):
            start = time.monotonic()
            found: dict[str, float] = {}
            for side in self._sides if number % 2 else reversed(self._sides):
                turn = self._take_turn(side, scenario, kind)
                found |= {f"{side.role}.{name}": v for name, v in turn["measures"].items()}
                self._keep(pairs, side, turn)
            now = time.monotonic()
            pairs.iterations.append({**found, "wall_time_seconds": now - start})
            left = (now - began) / number * (count - number)
            self._progress(
                f"{scenario}, {kind}: pair {number} of {count} took {now - start:.1f} s,"
                f" {left:.0f} s left"
            )

    @staticmethod
    def _keep(pairs: Pairs, side: Side, turn: Mapping[str, Any]) -> None:
        pairs.versions[side.role] = turn["versions"]
        if left := turn.get("final_request_snapshot"):
            pairs.request_snapshots[side.role] = left
        if left := turn.get("final_task_snapshot"):
            pairs.task_snapshots[side.role] = left

    def _take_turn(self, side: Side, scenario: str, kind: str) -> dict[str, Any]:
        size = "smoke" if self._is_smoke else "full"
        # -E and -s: nothing of this shell's PYTHON variables, nothing of the user's own site folder
        command = [str(side.python), "-E", "-s", "-m", "bench.compare.turns", scenario, kind, size]
        try:
            done = subprocess.run(
                command,
                cwd=self._folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=LONGEST_TURN_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise ComparisonError(
                f"a turn of {scenario} on {side} did not end within {LONGEST_TURN_SECONDS:g} s,"
                " expected seconds; run it again on a machine that does less besides."
            ) from error
        if done.returncode:
            sys.stderr.write(done.stderr)  # its traceback, and those of its processes
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
            raise ComparisonError(
                f"a turn of {scenario} on {side} failed, expected a library that this bench can"
                f" drive; choose a ref that has what it uses, or mend what it says: {lines[-1]}"
            )
        turn: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return turn
