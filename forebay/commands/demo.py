"""`forebay demo`: the whole thing in under a minute, with nothing to set up."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forebay.commands.lines import WIDTH
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import require_extra

if TYPE_CHECKING:
    from forebay.demo.observations import Observations
    from forebay.demo.summary import DemoSummary


@click.command("demo")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/demo"),
    show_default=True,
    help="Folder for records and plot.",
)
@click.option(
    "--backoff/--no-backoff",
    "has_backoff",
    default=True,
    show_default=True,
    help="At the same time, let as many callers back off alone, drawn beside.",
)
def demo_command(out: Path, *, has_backoff: bool) -> None:
    """Run three tenants on four workers against a provider with a hidden limit; survive trouble."""
    require_extra("demo", "forebay demo")
    from forebay.demo.backoff import BackoffBeside
    from forebay.demo.plot import draw
    from forebay.demo.scenario import CAPACITY, TENANTS, WORKERS, Demo
    from forebay.demo.summary import summarize
    from forebay.runtime import run_stoppable, stoppable

    _make(out)
    weights = ", ".join(f"{tenant} {weight:g}" for tenant, weight in TENANTS.items())
    click.echo(
        textwrap.fill(
            f"{WORKERS} worker processes, a provider that takes {CAPACITY} calls at once (and tells"
            f" nobody), {len(TENANTS)} tenants with weights {weights}; half way the capacity drops"
            " and a worker is killed."
            + (" Beside it, as many callers with back-off alone." if has_backoff else ""),
            WIDTH,
        )
        + "\n"
    )
    live = _LiveLine()
    beside = BackoffBeside() if has_backoff else None
    try:
        with stoppable():
            seen = Demo(out, live.show, beside).run(run_stoppable)
        backoff = beside.finish() if beside is not None else None
    finally:
        if beside is not None:
            beside.close()
    live.end()
    summary = summarize(seen)
    plot = out / "window.png"
    draw(seen, plot, backoff)
    _print(summary, seen, out, plot)
    if backoff is not None:
        click.echo(_row("back-off", _alone(backoff)))
    sys.exit(0 if summary.ok else 1)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"--out {out}: this folder cannot be made ({error.strerror}), expected one that this"
            " user may write to; name another."
        ) from error


class _LiveLine:
    """Rate, window, in flight, 429s, waiting: one line that moves, or a line a second."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._shown_at = -1.0
        self._noted = 0

    def show(self, seen: Observations) -> None:
        for at, note in seen.notes[self._noted :]:
            self._noted += 1
            click.echo(f"{self._start()}{at:5.1f} s  -- {note}")
        look = seen.looks[-1]
        if look.at - self._shown_at < (0.1 if self._is_terminal else 1.0):
            return
        self._shown_at = look.at
        past = next((old for old in seen.looks if old.at >= look.at - 2.0), look)
        span = look.at - past.at
        rate = (look.succeeded - past.succeeded) / span if span > 0 else 0.0
        line = (
            f"{look.at:5.1f} s  {look.succeeded:4d}/{2 * seen.records} calls {rate:5.1f}/s"
            f"  window {look.window:3d} in flight {look.in_flight:3d}"
            f" 429s {look.rate_limited:3d} waiting {look.waiting:3d}"
        )
        click.echo(f"{self._start()}{line}", nl=not self._is_terminal)

    def end(self) -> None:
        if self._is_terminal:
            click.echo()

    def _start(self) -> str:
        return "\r\x1b[K" if self._is_terminal else ""


def _print(summary: DemoSummary, seen: Observations, out: Path, plot: Path) -> None:
    tenants = ",".join(share.tenant for share in summary.shares)
    freed = summary.freed_after_seconds
    rows = {
        "records": f"{summary.written} of {summary.records} written, {summary.dropped} dropped,"
        f" {summary.lost} lost, {summary.doubled} doubled, in {summary.seconds:.1f} s",
        "goodput": f"{summary.goodput_ratio:.1%} of what the hidden capacity allowed: "
        + ", ".join(f"{step.ratio:.1%} of {step.capacity}" for step in summary.steps),
        "429s": f"{summary.refused} of {summary.attempts} attempts ({summary.refused_rate:.1%})",
        "shares": ", ".join(
            f"{s.tenant} {s.share:.1%} (weight {s.fair_share:.1%})" for s in summary.shares
        )
        + " of the records done while all had work",
        "idle gaps": f"ready_idle_gap of {summary.idle_gaps}: p99"
        f" {summary.idle_gap_p99_seconds * 1e3:.0f} ms, longest"
        f" {summary.longest_idle_gap_seconds * 1e3:.0f} ms (a slot free beside ready work)",
        "drop": f"{_drop(seen)}; {summary.lost} records lost",
        "SIGKILL": "one worker of four"
        + (
            f"; its leases and tasks were the others' again after {freed:.1f} s"
            if freed is not None
            else "; its membership did not end before the demo did"
        ),
        "left over": f"{summary.leases_left} leases, {summary.waiters_left} waiters; audit: "
        + ("ok" if not summary.audit_differences else "; ".join(summary.audit_differences)),
        "files": f"{out}/{{{tenants}}}.jsonl and {plot}",
    }
    click.echo()
    for name, text in rows.items():
        click.echo(_row(name, text))


def _alone(seen: Observations) -> str:
    """Print the result of back-off alone, with a second provider of equal capacities."""
    from forebay.demo.backoff import SDK_RETRIES
    from forebay.demo.summary import goodput, refusals

    refused = refusals(seen)
    return (
        f"alone, at the same time: {refused} 429s of {len(seen.requests)} attempts"
        f" ({refused / len(seen.requests):.1%}); {seen.beyond_sdks} calls refused more than"
        f" {SDK_RETRIES} times, when SDKs give up; goodput {goodput(seen)[0]:.1%}"
    )


def _row(name: str, text: str) -> str:
    """Return a named line of the summary, continued below itself where it is long."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"{name:<11}",
        subsequent_indent=" " * 11,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _drop(seen: Observations) -> str:
    """Print when the capacity fell and came back, and the window at those times."""
    (fell_at, fell), (back_at, back) = seen.notes[:2]
    before = [look.window for look in seen.looks if look.at < fell_at]
    during = [look.window for look in seen.looks if fell_at <= look.at < back_at]
    after = [look.window for look in seen.looks if look.at >= back_at]
    return (
        f"{fell} at {fell_at:.1f} s: window {before[-1]} -> {min(during)};"
        f" {back} at {back_at:.1f} s: window back to {max(after)}"
    )
