"""Figures of a simulated run: goodput beside the oracle's, 429s, time to follow a step, shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from bench.figures import jain_index
from bench.simulate.callers import Answer
from bench.simulate.provider import Provider, Steps
from bench.simulate.scenario import Scenario
from bench.simulate.simulation import Run, Sample
from forebay.simulation.timeline import SECOND_US, to_us

SPARKS: Final = "▁▂▃▄▅▆▇█"
FOLLOWED: Final = 0.9
"""A window that has this part of a higher limit has followed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """A run in numbers.

    Attributes:
        goodput: answered calls a second, settled.
        best: the oracle's.
        ratio: of the one to the other.
        whole_ratio: the same, of the whole run.
        refused: 429s, settled.
        refused_share: of the answers, settled.
        refused_in_all: 429s.
        refused_first: 429s in the first ten seconds, or in the five after the row's outage began.
        shares: each tenant's part of the settled goodput, or each fleet's where there are several.
        jain: over tenants by their weights, settled; None for one tenant.
        follows: seconds until the window had followed each step of the truth; None if it never had.
        limits: the first fleet's window over time, one sample a tenth of a second.
    """

    goodput: float
    best: float
    ratio: float
    whole_ratio: float
    refused: int
    refused_share: float
    refused_in_all: int
    refused_first: int
    shares: dict[str, float]
    jain: float | None
    follows: list[float | None]
    limits: list[int]

    def as_json(self) -> dict[str, Any]:
        """Return it for an artifact."""
        return {name: getattr(self, name) for name in self.__slots__}


def measure(scenario: Scenario, run: Run, oracle: Run) -> Measures:
    """Return what a run says beside the oracle's of the same row and seed."""
    spans = [(to_us(a), to_us(min(b, scenario.seconds))) for a, b in scenario.settled]
    settled = [a for a in run.answers if _is_within(a.at_us, spans)]
    good = [a for a in settled if a.is_success]
    best = sum(a.is_success and _is_within(a.at_us, spans) for a in oracle.answers)
    seconds = sum(b - a for a, b in spans) / SECOND_US
    refused = len(settled) - len(good)
    shares, jain = _shares(scenario, good)
    samples = run.samples[0]
    began, first_seconds = (scenario.step_at, 5) if scenario.step_at else (0.0, 10)
    first = [(to_us(began), to_us(began + first_seconds))]
    return Measures(
        goodput=len(good) / seconds,
        best=best / seconds,
        ratio=len(good) / best if best else 1.0,
        whole_ratio=_successes(run.answers) / max(1, _successes(oracle.answers)),
        refused=refused,
        refused_share=refused / len(settled) if settled else 0.0,
        refused_in_all=sum(not a.is_success for a in run.answers),
        refused_first=sum(not a.is_success and _is_within(a.at_us, first) for a in run.answers),
        shares=shares,
        jain=jain,
        follows=_follows(scenario, run.provider, samples),
        limits=[sample.limit for sample in samples],
    )


def _successes(answers: Iterable[Answer]) -> int:
    return sum(answer.is_success for answer in answers)


def _is_within(us: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(begins <= us < ends for begins, ends in spans)


def _shares(scenario: Scenario, good: Sequence[Answer]) -> tuple[dict[str, float], float | None]:
    if len(scenario.fleets) > 1:
        counts = Counter(f"fleet {answer.fleet + 1}" for answer in good)
        names = [f"fleet {number + 1}" for number in range(len(scenario.fleets))]
        return {name: counts[name] / max(1, len(good)) for name in names}, None
    weights = {c.tenant: c.weight for c in scenario.fleets[0].callers}
    if len(weights) == 1:
        return {}, None
    counts = Counter(answer.tenant for answer in good)
    jain = jain_index([counts[tenant] / weight for tenant, weight in weights.items()])
    return {tenant: counts[tenant] / max(1, len(good)) for tenant in weights}, jain


def _follows(
    scenario: Scenario, provider: Provider, samples: Sequence[Sample]
) -> list[float | None]:
    """Return how long each step took: up to `FOLLOWED` of the limit, or down to it."""
    course = None if provider.at_once is None else provider.at_once.course
    steps = course.values if isinstance(course, Steps) else ()
    found: list[float | None] = []
    for number, ((_, before), (begins, after)) in enumerate(pairwise(steps)):
        ends = steps[number + 2][0] if number + 2 < len(steps) else scenario.seconds
        span = [s for s in samples if to_us(begins) <= s.at_us < to_us(ends)]
        is_up = after > before
        followed = (
            s.at_us
            for s in span
            if (s.limit >= FOLLOWED * after if is_up else s.in_flight <= after)
        )
        at_us = next(followed, None)
        found.append(None if at_us is None else round(at_us / SECOND_US - begins, 1))
    return found


def sparkline(limits: Sequence[int], width: int = 48) -> str:
    """Return the course of a window as text: each sign is a mean, of the highest at most."""
    if not limits:
        return ""
    highest = max(limits)
    size = len(limits) / width
    parts = [
        limits[int(n * size) : max(int(n * size) + 1, int((n + 1) * size))] for n in range(width)
    ]
    means = [sum(part) / len(part) for part in parts if part]
    signs = "".join(SPARKS[min(7, int(8 * mean / (highest + 1)))] for mean in means)
    return f"{signs} of {highest}"
