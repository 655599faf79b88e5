"""``python -m bench proxy``: `forebay proxy` beside LiteLLM's, in turns in one run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import click

from bench import report
from bench.figures import Figure, Iterations, middle, of_rounds, ratios
from bench.harness import Fleet, Outcome, final_snapshots, new_runner, repeat, rotated
from bench.proxies.load import Turn, take_turn
from bench.proxies.sides import (
    LIMITED,
    MODEL,
    PROVIDER,
    TOLD,
    Ports,
    Side,
    forebay,
    litellm,
)
from bench.shared_capacity.children import find_litellm, mock_provider
from bench.transport import provide
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.server.embedded import EmbeddedServer

PROGRAM: Final = Path(".venv/apart/litellm-proxy/bin/litellm")
IN_FLIGHT: Final = 64
LIMIT: Final = 8
"""Calls that the provider of the second part takes at once, and tells nobody of."""
LATENCY_SECONDS: Final = 0.25
CALLERS: Final = 24

_KEYS: Final = [
    ProviderModelKey(provider_name=name, model_id=MODEL) for name in (PROVIDER, LIMITED)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run.

    Attributes:
        rounds: how often each side has its turn.
        seconds: the counted time of a turn.
        limit_seconds: of a turn at the limit.
        settled_seconds: before it, in which a window finds the limit.
    """

    rounds: int = 5
    seconds: float = 3.0
    limit_seconds: float = 20.0
    settled_seconds: float = 20.0


FULL: Final = Inputs()
SMOKE: Final = Inputs(rounds=1, seconds=0.3, limit_seconds=0.5, settled_seconds=0.5)


@click.command("proxy")
@click.option("--rounds", type=click.IntRange(min=1), default=FULL.rounds, show_default=True)
@click.option("--smoke", is_flag=True, help="In seconds, without LiteLLM where it is missing.")
@click.option(
    "--litellm",
    "program",
    type=click.Path(path_type=Path),
    default=PROGRAM,
    show_default=True,
    help="LiteLLM's program; make .venv/apart/litellm-proxy installs it.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/bench-proxy"),
    show_default=True,
)
def proxy(rounds: int, smoke: bool, program: Path, out: Path) -> None:
    """Measure what each proxy adds to a call, how many calls a core carries, and a limit.

    First against a provider that answers at once: added latency with one call in flight, calls per
    second of the proxy's own CPU with 64. Then against one that takes 8 calls at once and tells
    nobody: calls that succeed, relative to 8 callers that know the limit, and refused calls.
    """
    try:
        find_litellm(program)
    except ConfigurationError:
        if not smoke:
            raise
        program = Path()
    inputs = SMOKE if smoke else Inputs(rounds=rounds)
    where = report.origin(is_smoke=smoke)
    with tempfile.TemporaryDirectory(prefix="proxies-") as folder, EmbeddedServer() as server:
        found = _run(inputs, Path(folder), server.url, program)
    report.write(out, where, {"proxy": found})
    report.show(found.figures)


def _run(inputs: Inputs, folder: Path, redis_url: str, program: Path) -> Outcome:
    has_litellm = program != Path()
    said = lambda line: click.echo(line, err=True)  # noqa: E731
    options = ("--concurrency", str(LIMIT), "--latency", str(LATENCY_SECONDS))
    with (
        Fleet(1, provide) as provider,
        mock_provider(folder, *options) as base_url,
        contextlib.ExitStack() as started,
    ):
        (port,) = provider.ask({0: "port"})
        ports = Ports(at_once=port, limited=int(base_url.rpartition(":")[2].partition("/")[0]))
        own = started.enter_context(forebay(folder, ports, redis_url))
        sides = [Side(name="direct", port=port, process_id=None), own]
        limited = [
            Side(name="told", port=ports.limited, process_id=None),
            replace(own, path=f"/{LIMITED}"),
        ]
        if has_litellm:
            theirs = started.enter_context(litellm(folder, ports, program, LIMIT))
            sides.append(theirs)
            limited.append(replace(theirs, model=LIMITED))
            limited.append(replace(theirs, name="litellm-told", model=TOLD))
        calls = repeat("calls", inputs.rounds, lambda n: _calls(sides, inputs, n), said)
        limits = repeat("limit", 1, lambda n: _limits(limited, inputs, n), said)
    iterations = [*calls, *limits]
    return Outcome(
        inputs=asdict(inputs) | {"in_flight": IN_FLIGHT, "limit": LIMIT, "callers": CALLERS},
        iterations=iterations,
        figures=_figures(iterations, has_litellm=has_litellm),
        final_request_snapshots=final_snapshots(redis_url, *_KEYS),
    )


def _calls(sides: Sequence[Side], inputs: Inputs, number: int) -> dict[str, float]:
    """Give each side its turn with one call in flight, and with many."""
    found: dict[str, float] = {}
    for side in rotated(sides, number):
        alone, many = (
            _turn(side, count, inputs.seconds, inputs.seconds / 3) for count in (1, IN_FLIGHT)
        )
        if alone.latencies:
            found[f"{side.name}.p50_ms"] = median(alone.latencies) * 1e3
            found[f"{side.name}.p99_ms"] = _p99(alone.latencies) * 1e3
        found[f"{side.name}.calls_per_second"] = many.statuses[200] / inputs.seconds
        if side.process_id is not None and many.cpu_seconds:
            found[f"{side.name}.calls_per_cpu_second"] = many.statuses[200] / many.cpu_seconds
    for side in sides[1:]:
        for percentile in ("p50_ms", "p99_ms"):
            of_side, direct = f"{side.name}.{percentile}", f"direct.{percentile}"
            if of_side in found and direct in found:
                found[f"{side.name}.added_{percentile}"] = found[of_side] - found[direct]
    return found


def _limits(sides: Sequence[Side], inputs: Inputs, _number: int) -> dict[str, float]:
    """Give each side its turn at a provider that refuses above its limit.

    The first side calls it directly with as many callers as it takes: what it gets is the limit.
    """
    found: dict[str, float] = {}
    limit = 0
    for side in sides:
        callers = CALLERS if side.process_id is not None else LIMIT
        turn = _turn(side, callers, inputs.limit_seconds, inputs.settled_seconds)
        limit = limit or max(1, turn.statuses[200])
        found[f"{side.name}.calls_at_limit_per_second"] = turn.statuses[200] / inputs.limit_seconds
        found[f"{side.name}.share_of_limit"] = turn.statuses[200] / limit
        found[f"{side.name}.refused"] = 1 - turn.statuses[200] / max(1, turn.statuses.total())
    return found


def _turn(side: Side, in_flight: int, seconds: float, warm_up_seconds: float) -> Turn:
    with new_runner() as runner:
        return runner.run(
            take_turn(side, in_flight=in_flight, seconds=seconds, warm_up_seconds=warm_up_seconds)
        )


def _figures(iterations: Iterations, *, has_litellm: bool) -> list[Figure]:
    limit = Figure(
        name=f"share used of an unknown limit of {LIMIT} at once",
        rounds=of_rounds(iterations, "forebay.share_of_limit"),
        aim=0.97,
        is_floor=True,
        beside=_beside(iterations, "share_of_limit"),
    )
    refused = Figure(
        name="share of the calls there that were refused",
        rounds=of_rounds(iterations, "forebay.refused"),
        beside=_beside(iterations, "refused"),
    )
    if not has_litellm:
        return [limit, refused]
    names = {"added_p50_ms": "added latency, p50", "added_p99_ms": "added latency, p99"}
    return [
        *(
            Figure(
                name=f"{text}, to LiteLLM's",
                rounds=ratios(iterations, f"forebay.{name}", f"litellm.{name}"),
                aim=0.5,
                beside=" / ".join(
                    f"{one} {middle(iterations, f'{one}.{name}', 'ms')}"
                    for one in ("forebay", "litellm")
                ),
            )
            for name, text in names.items()
        ),
        Figure(
            name=f"calls per second and core, {IN_FLIGHT} in flight, to LiteLLM's",
            rounds=ratios(
                iterations, "forebay.calls_per_cpu_second", "litellm.calls_per_cpu_second"
            ),
            aim=2.0,
            is_floor=True,
            beside=" / ".join(
                f"{one} {middle(iterations, f'{one}.calls_per_cpu_second', '')}"
                for one in ("forebay", "litellm")
            ),
        ),
        limit,
        refused,
    ]


def _beside(iterations: Iterations, name: str) -> str:
    return " / ".join(
        f"{side} {middle(iterations, f'{side}.{name}', '')}" for side in ("litellm", "litellm-told")
    )


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[-1] if len(values) > 1 else values[0]
