"""`forebay replay`: replays recorded calls with another cap, weight or rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

import click

from forebay.commands.lines import fitted, say
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import how_to_install
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.replay import tables
from forebay.replay.recording import TASKS_ARE_NOT_REPLAYED, Recording, read_recording
from forebay.replay.replaying import Outcome, ReplaySettings, replay, what_happened

MANY_ATTEMPTS: Final = 20_000
"""Attempts from which on the command says that it takes long."""
_FILES = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("replay")
@click.argument("events", nargs=-1, required=True, type=_FILES, metavar="EVENTS...")
@click.option("--model", metavar="PROVIDER/MODEL", help="Which one [the one with most attempts].")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="cap=40, weight.GROUP=3 or rule=aimd; as often as you like.",
)
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Also write this PNG."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def replay_command(
    events: tuple[Path, ...],
    model: str | None,
    changes: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
) -> None:
    """Replay recorded calls through the production Lua under other settings.

    EVENTS are files that a JSON Lines sink wrote, one a process. Each call that was served is asked
    for when it was and takes as long as it took, on a simulated clock and a private server; nothing
    else is called or changed.

    The provider's limit is not known. It is taken to serve as many calls at once as the recording
    shows, and to refuse each further one: so the 429s are a bound, not a forecast.

    weight.GROUP is of a request group. Events of task pools in the same files are counted and not
    replayed: a run submits tasks as earlier ones end, and no event tells which ones.

    \b
    Examples:
      forebay replay events.jsonl --set cap=40
      forebay replay worker-*.jsonl --model openai/gpt-5 --set weight.atlas=3 --plot window.png
    """  # noqa: D301 - click's mark for "do not wrap" is the character, not its escape
    if plot is not None and find_spec("matplotlib") is None:
        raise ConfigurationError(
            f"--plot needs matplotlib, which cannot be imported here; run {how_to_install('demo')},"
            " or leave the option out."
        )
    recording = read_recording(events, None if model is None else _key(model))
    settings = _settings(changes, {attempt.group for attempt in recording.attempts})
    if len(recording.attempts) > MANY_ATTEMPTS:
        times = 2 if changes else 1
        say(
            f"replaying {len(recording.attempts)} attempts, {times} times; this takes minutes",
            err=True,
        )
    with EmbeddedServer() as server:
        outcomes = {
            "happened": what_happened(recording),
            "replayed": replay(recording, ReplaySettings(), server.url),
        }
        if changes:
            outcomes[" ".join(changes)] = replay(recording, settings, server.url)
    (_print_json if as_json else _print_table)(recording, outcomes)
    if plot is not None:
        from forebay.replay.plot import plot_windows

        plot_windows(outcomes, plot)
        say(f"windows and waits over time: {plot}")


def _print_json(recording: Recording, outcomes: dict[str, Outcome]) -> None:
    document = {
        "model": str(recording.provider_model),
        "served_at_once": recording.served_at_once,
        "unfinished": recording.unfinished,
        "task_events": recording.task_events,
        "outcomes": tables.facts(outcomes),
    }
    click.echo(json.dumps(document, ensure_ascii=False))


def _print_table(recording: Recording, outcomes: dict[str, Outcome]) -> None:
    parts = [
        str(recording.provider_model),
        f"{len(recording.attempts)} attempts",
        f"{recording.unfinished} unfinished ones left out",
        f"assumed to serve {recording.served_at_once} calls at once, as seen",
    ]
    for line in fitted(parts):
        say(line)
    for key, count in recording.others.items():
        say(f"not replayed: {count} attempts at {key}; name it with --model")
    if recording.task_events:
        for line in fitted([f"not replayed: {recording.task_events} events of task pools"]):
            say(line)
    click.echo("\n".join(tables.table(outcomes)))


def _key(text: str) -> ProviderModelKey:
    provider, slash, model = text.partition("/")
    if not (provider and slash and model):
        raise ConfigurationError(f"--model {text!r}: expected PROVIDER/MODEL, as openai/gpt-5.")
    return ProviderModelKey(provider_name=provider, model_id=model)


def _settings(changes: Sequence[str], groups: set[str]) -> ReplaySettings:
    cap: int | None = None
    rule: Literal["steady", "aimd"] = "steady"
    weights: dict[str, float] = {}
    for change in changes:
        name, _, value = change.partition("=")
        group = name.removeprefix("weight.")
        if name == "cap" and value.isdecimal() and int(value) > 0:
            cap = int(value)
        elif change in {"rule=steady", "rule=aimd"}:
            rule = "aimd" if value == "aimd" else "steady"
        elif group != name and group in groups and _is_weight(value):
            weights[group] = float(value)
        else:
            raise ConfigurationError(
                f"--set {change}: expected cap=N of 1 or more, rule=steady or rule=aimd, or"
                f" weight.GROUP=W with W above 0 and GROUP one of: {', '.join(sorted(groups))}."
                f" {TASKS_ARE_NOT_REPLAYED}."
            )
    return ReplaySettings(cap=cap, weights=weights, rule=rule)


def _is_weight(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False
