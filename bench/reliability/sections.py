"""The written sections of ``docs/reliability.md``: each function measures and returns Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench import crowd
from bench.harness import Progress
from bench.reliability.document import table
from bench.reliability.restart import restarts
from bench.reliability.scale import heartbeats, longest_calls_ms, reclaim
from bench.report import HEADERS
from forebay.contracts.errors import ConfigurationError

Section = Callable[[bool], str]
"""Measures, small if the argument is True, and returns the section's Markdown."""
CHAOS_OUT: Final = Path("out/chaos")
LOST_STATE_OUT: Final = Path("out/lost-state.json")
QUIET: Final[Progress] = lambda _line: None  # noqa: E731


def measured_on() -> str:
    """Return when, on how busy a machine and at which priority a section was measured."""
    today, load, nice = datetime.now(UTC).date().isoformat(), os.getloadavg()[1], os.nice(0)
    priority = f", at nice {nice}" if nice else ""
    return f"Measured on {today}, {os.cpu_count()} cores, load {load:.0f}{priority}."


def scale(is_smoke: bool) -> str:
    """Numbers: leases of a dead member, heartbeats, a crowd of waiters."""
    leases, members, seconds = (400, 10, 2.0) if is_smoke else (10_000, 500, 20.0)
    rounds = [reclaim(leases) for _ in range(1 if is_smoke else 5)]
    longest_ms = max(longest_calls_ms(rounds))
    walls = [ms for one in rounds for ms in one.calls_ms]
    share = heartbeats(members, seconds)
    inputs = crowd.SMOKE if is_smoke else crowd.Inputs(rounds=1)
    rows: list[tuple[str, ...]] = [
        (
            f"{leases:,} leases of a killed process: the longest script of 200",
            "≤ 5 ms",
            f"{longest_ms:.1f} ms",
            "",
            (
                f"each at its place, the least of {len(rounds)} runs; on the wall, with what"
                f" else the machine did, {min(walls):.1f} to {max(walls):.1f} ms"
            ),
            "yes" if longest_ms <= 5 else "**no**",
        ),
        (
            f"{leases:,} leases of a killed process: until all are free, TTL 3 s",
            "",
            f"{min(one.seconds for one in rounds):.1f} s",
            "",
            "",
            "",
        ),
        (
            f"{members} idle members, TTL 15 s: the server's share of a core",
            "≤ 5 %",
            f"{share:.1%}",
            "",
            "",
            "yes" if share <= 0.05 else "**no**",
        ),
    ]
    rows += [figure.row for figure in crowd.run(inputs, QUIET).figures]
    return f"{measured_on()}\n\n{table(HEADERS, rows)}"


def chaos(_is_smoke: bool) -> str:
    """The longest run of ``make chaos`` that is kept in ``out/chaos``."""
    results = (json.loads(file.read_text()) for file in CHAOS_OUT.glob("*.found.json"))
    kept: list[dict[str, Any]] = [result for result in results if "measured_on" in result]
    if not kept:
        raise ConfigurationError(
            f"{CHAOS_OUT} has no result, expected that of a run; run make chaos first."
        )
    found = max(kept, key=lambda one: sum(one["injected"].values()))
    given, injected = found["given"], found["injected"]
    differences = [f"* at {at} s: {what}" for at, what in found["differences"]]
    survived = found["survived"]
    rows = [
        (kind, str(count), str(survived.get(kind, 0))) for kind, count in sorted(injected.items())
    ]
    rows.append(("**all**", f"**{sum(injected.values())}**", f"**{sum(survived.values())}**"))
    counts = "; ".join(f"{name} {count}" for name, count in found["counts"].items())
    rate = sum(injected.values()) * 60 / given["seconds"]
    faults = f"Seed {given['seed']}, {given['seconds']:g} s of faults, {rate:.0f} a minute."
    return "\n\n".join(
        [
            f"{found['measured_on']} {faults} {counts}.",
            table(("fault", "injected", "survived"), rows),
            f"Differences: {len(differences)}.",
            *(["\n".join(differences)] if differences else []),
        ]
    )


def lost_state(_is_smoke: bool) -> str:
    """The last run of ``make lost-state``, as kept in ``out/lost-state.json``."""
    if not LOST_STATE_OUT.exists():
        raise ConfigurationError(
            f"{LOST_STATE_OUT} is missing, expected the result of a run; run make lost-state first."
        )
    found = json.loads(LOST_STATE_OUT.read_text())
    rows = [
        (
            one["loss"],
            f"{one['back_seconds']:.2f} s" if one["was_there"] else "nothing was there",
            str(one["most"]),
            str(one["expired"]),
            "; ".join(one["over"]) or "none",
        )
        for one in found["seen"]
    ]
    headers = ("loss", "whole again after", "most at once", "leases of expired members", "above 8")
    given = (
        f"Calls of {found['call_seconds']:g} s by 18 callers in three processes, cap 8, TTL"
        f" {found['ttl_seconds']:g} s (behind the Sentinel 3 s)."
    )
    return f"{found['measured_on']} {given}\n\n{table(headers, rows)}"


def outage_modes(is_smoke: bool) -> str:
    """Outages: calls while the server is away, failovers, and who comes back when."""
    from bench.reliability.outages import outages  # noqa: PLC0415 - uses what the tests share

    return f"{measured_on()}\n\n{outages(is_smoke)}"


def restart(is_smoke: bool) -> str:
    """Restart: how soon a fleet is at full throughput after its server was killed."""
    return f"{measured_on()}\n\n{restarts(is_smoke)}"


SECTIONS: Final[dict[str, Section]] = {
    "chaos": chaos,
    "lost-state": lost_state,
    "outages": outage_modes,
    "restart": restart,
    "scale": scale,
}
"""By name, as the document has them. A new section is a function here, two comments there."""
