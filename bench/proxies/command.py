"""``python -m bench proxy``: `forebay proxy` beside LiteLLM's, in turns in one run."""

from __future__ import annotations

import asyncio
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
"""Hidden limit of the second part's provider, in calls at once."""
LATENCY_SECONDS: Final = 1.0
"""Latency of the limited provider; a proxy's own time is a small part of it."""
CALLERS: Final = 24
SIDES_AT_LIMIT: Final = ("told", "forebay", "litellm", "litellm-told")

_KEYS: Final = [
    ProviderModelKey(provider_name=name, model_id=MODEL) for name in (PROVIDER, LIMITED)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run.

    Attributes:
        rounds: how often each side has its turn.
        seconds: the counted time of a turn.
        limit_rounds: how often all sides meet the limit.
        limit_seconds: the counted time at the limit.
        settled_seconds: before it, in which a window finds the limit.
    """

    rounds: int = 5
    seconds: float = 3.0
    limit_rounds: int = 3
    limit_seconds: float = 40.0
    settled_seconds: float = 20.0


FULL: Final = Inputs()
SMOKE: Final = Inputs(rounds=1, seconds=0.3, limit_rounds=1, limit_seconds=1.5, settled_seconds=1.5)


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
    second of the proxy's own CPU with 64. Then against providers that take 8 calls at once and tell
    nobody, all sides at the same time, each at a provider of its own: calls that succeed, relative
    to 8 callers that know the limit and call directly, and refused calls.
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
    with Fleet(1, provide) as provider, contextlib.ExitStack() as started:
        (port,) = provider.ask({0: "port"})
        ports = Ports(
            at_once=port,
            limited={name: _limited_port(started, folder / name) for name in SIDES_AT_LIMIT},
        )
        own = started.enter_context(forebay(folder, ports, redis_url))
        sides = [Side(name="direct", port=port, process_id=None), own]
        limited = [
            Side(name="told", port=ports.limited["told"], process_id=None),
            replace(own, path=f"/{LIMITED}"),
        ]
        if has_litellm:
            theirs = started.enter_context(litellm(folder, ports, program, LIMIT))
            sides.append(theirs)
            limited.append(replace(theirs, model=LIMITED))
            limited.append(replace(theirs, name="litellm-told", model=TOLD))
        calls = repeat("calls", inputs.rounds, lambda n: _calls(sides, inputs, n), said)
        limits = repeat("limit", inputs.limit_rounds, lambda _: _limits(limited, inputs), said)
    iterations = [*calls, *limits]
    return Outcome(
        inputs=asdict(inputs) | {"in_flight": IN_FLIGHT, "limit": LIMIT, "callers": CALLERS},
        iterations=iterations,
        figures=_figures(iterations, has_litellm=has_litellm),
        final_request_snapshots=final_snapshots(redis_url, *_KEYS),
    )


def _limited_port(started: contextlib.ExitStack, folder: Path) -> int:
    """Start a provider that refuses above the limit; return its port."""
    folder.mkdir()
    options = ("--concurrency", str(LIMIT), "--latency", str(LATENCY_SECONDS))
    base_url = started.enter_context(mock_provider(folder, *options))
    return int(base_url.rpartition(":")[2].partition("/")[0])


def _calls(sides: Sequence[Side], inputs: Inputs, number: int) -> dict[str, float]:
    """Give each side its turn with one call in flight, and with many."""
    found: dict[str, float] = {}
    for side in rotated(sides, number):
        alone, many = (
            _turns([side], count, inputs.seconds, inputs.seconds / 3)[0] for count in (1, IN_FLIGHT)
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


def _limits(sides: Sequence[Side], inputs: Inputs) -> dict[str, float]:
    """Let all sides meet their limits at the same time, so that the machine's moods meet all.

    The first side calls directly, with as many callers as its provider takes: it is told.
    """
    found: dict[str, float] = {}
    turns = _turns(sides, CALLERS, inputs.limit_seconds, inputs.settled_seconds)
    limit = max(1, turns[0].statuses[200])
    for side, turn in zip(sides, turns, strict=True):
        found[f"{side.name}.calls_at_limit_per_second"] = turn.statuses[200] / inputs.limit_seconds
        found[f"{side.name}.share_of_limit"] = turn.statuses[200] / limit
        found[f"{side.name}.refused"] = 1 - turn.statuses[200] / max(1, turn.statuses.total())
    return found


def _turns(
    sides: Sequence[Side], callers: int, seconds: float, warm_up_seconds: float
) -> list[Turn]:
    """Let sides take their turns at the same time; an informed side has a caller per slot."""

    async def take_all() -> list[Turn]:
        turns = (
            take_turn(
                side,
                in_flight=LIMIT if side.name == "told" else callers,
                seconds=seconds,
                warm_up_seconds=warm_up_seconds,
            )
            for side in sides
        )
        return list(await asyncio.gather(*turns))

    with new_runner() as runner:
        return runner.run(take_all())


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
        f"{side} {middle(iterations, f'{side}.{name}', '')}" for side in SIDES_AT_LIMIT[2:]
    )


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[-1] if len(values) > 1 else values[0]
