"""`forebay replay`: recorded calls again, through the production Lua under other settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import forebay
from forebay.cli import cli
from forebay.contracts.errors import ConfigurationError
from forebay.replay.plot import mean_waits
from forebay.replay.recording import read_recording
from forebay.replay.replaying import what_happened
from forebay.sinks import JsonLinesSink
from tests.contract.chat_domain import MODEL, item
from tests.support_scripts import AIMD

CALLS = 40
SECONDS = 1.0
CAP = 4
BEGIN = 1_795_500_000.0


def recorded() -> Iterator[dict[str, Any]]:
    """Calls of two groups, all asked for at the beginning, of a second each, four at once; by name.

    Before them a call that was refused, after them one that never ended and one elsewhere.
    """
    yield from attempt("refused", "atlas", BEGIN, BEGIN, BEGIN + 0.05, "rate_limited")
    for number in range(CALLS):
        granted = BEGIN + number // CAP * SECONDS
        group = ("atlas", "borealis")[number % 2]
        yield from attempt(f"a{number}", group, BEGIN, granted, granted + SECONDS, "success")
    yield event("request_wait_started", "never", "atlas", BEGIN)
    yield from attempt("other", "atlas", BEGIN, BEGIN, BEGIN + 1, "success", model="other")


def attempt(
    name: str, group: str, asked: float, granted: float, ended: float, outcome: str, **more: Any
) -> Iterator[dict[str, Any]]:
    yield event("request_wait_started", name, group, asked, **more)
    seen = {"limit_at_admission": CAP, "effective_max": CAP}
    process = {"member_id": f"m{name[-1]}"}
    yield event("request_lease_acquired", name, group, granted, seen, process, **more)
    yield event("request_lease_released", name, group, ended, **more) | {
        "reason_or_outcome": outcome
    }


def event(
    kind: str,
    name: str,
    group: str,
    at: float,
    snapshot: dict[str, Any] | None = None,
    diagnostics: dict[str, Any] | None = None,
    model: str = "m",
) -> dict[str, Any]:
    return {
        "event_kind": kind,
        "captured_at": at,
        "request_attempt_id": name,
        "request_group_key": group,
        "request_resource_key": {"provider_name": "p", "model_id": model, "domain": "chat"},
        "snapshot": snapshot or {},
        "diagnostics": diagnostics or {},
    }


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    lines = [json.dumps(told) for told in recorded()]
    path.write_text("\n".join([*lines, '{"event_kind": "cut of']))
    return path


def replayed(events: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["replay", str(events), *options])


def outcomes(events: Path, *options: str) -> dict[str, Any]:
    ran = replayed(events, "--json", *options)
    assert ran.exit_code == 0, ran.output
    told: dict[str, Any] = json.loads(ran.output)["outcomes"]
    return told


def test_recorded_attempts_are_read_and_shown(events: Path) -> None:
    recording = read_recording([events], None)
    assert str(recording.provider_model) == "p/m"
    assert (len(recording.attempts), recording.unfinished) == (CALLS + 1, 1)
    assert (recording.cap, recording.served_at_once) == (CAP, CAP)
    assert [(str(key), count) for key, count in recording.others.items()] == [("p/other", 1)]


def test_a_replay_under_the_same_settings_is_near_what_happened(events: Path) -> None:
    told = outcomes(events)
    happened, again = told["happened"], told["replayed"]
    assert (happened["calls"], happened["refusals"]) == (CALLS, 1)
    assert (again["calls"], again["cap"]) == (CALLS, CAP)
    assert again["seconds"] == pytest.approx(happened["seconds"], rel=0.1)
    assert again["groups"]["atlas"]["share"] == pytest.approx(0.5, abs=0.08)


def test_a_lower_cap_lengthens_a_replay_and_equal_replays_are_equal(events: Path) -> None:
    told = outcomes(events, "--set", "cap=2")
    assert told["cap=2"]["cap"] == 2
    assert told["cap=2"]["seconds"] == pytest.approx(CALLS * SECONDS / 2, rel=0.1)
    assert told == outcomes(events, "--set", "cap=2")


def test_a_weight_moves_shares_and_waits(events: Path) -> None:
    change = "weight.atlas=3"
    groups = outcomes(events, "--set", change)[change]["groups"]
    assert groups["atlas"]["share"] == pytest.approx(0.75, abs=0.08)
    assert groups["atlas"]["p95"] < groups["borealis"]["p95"]


def test_a_higher_cap_is_answered_with_a_bound_of_429s(events: Path) -> None:
    told = outcomes(events, "--set", "cap=8")
    assert told["replayed"]["refusals"] == 0
    assert told["cap=8"]["refusals"] > 0
    assert told["cap=8"]["calls"] == CALLS
    said = replayed(events, "--set", "cap=8").output
    assert f"assumed to serve {CAP} calls at once" in " ".join(said.split())
    assert "429s, at most" in said
    assert "not replayed: 1 attempts at p/other" in said
    assert max(map(len, said.splitlines())) <= 80


def test_waits_of_the_plot_are_means_of_spans_of_time(events: Path) -> None:
    happened = what_happened(read_recording([events], None))
    ((at, mean),) = mean_waits(happened)  # all were asked for at once
    assert at == pytest.approx(0.5)
    assert mean == pytest.approx((CALLS // CAP - 1) / 2 * SECONDS)


def test_the_plot_is_a_picture(events: Path, tmp_path: Path) -> None:
    picture = tmp_path / "window.png"
    assert replayed(events, "--plot", str(picture)).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "cap=0"], "--set cap=0: expected cap=N"),
        (["--set", "weight.nobody=2"], "GROUP one of: atlas, borealis"),
        (["--set", "weight.atlas=nan"], "W above 0"),
        (["--set", "limit.submission=3"], "a pool's weights and limits cannot be tried"),
        (["--model", "p"], "expected PROVIDER/MODEL"),
        (["--model", "p/none"], "the provider/models found are: p/m, p/other"),
    ],
)
def test_a_wrong_option_is_refused_in_a_sentence(
    events: Path, options: list[str], said: str
) -> None:
    refused = replayed(events, *options).exception
    assert isinstance(refused, ConfigurationError)
    assert said in str(refused)


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "odd.jsonl"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def test_events_in_another_order_are_the_same_recording(events: Path, tmp_path: Path) -> None:
    lines = [json.dumps(told) for told in recorded()]
    turned = read_recording([written(tmp_path, *reversed(lines))], None)
    straight = read_recording([events], None)
    assert {one.attempt_id: one for one in turned.attempts} == {
        one.attempt_id: one for one in straight.attempts
    }


def test_events_of_pools_and_of_unknown_kinds_are_no_attempts(tmp_path: Path) -> None:
    lines = [json.dumps(told) for told in recorded()]
    task = {"event_kind": "task_selected", "stream": "scheduler", "captured_at": BEGIN}
    path = written(tmp_path, json.dumps(task), *lines, '{"event_kind": "of_tomorrow"}')
    assert len(read_recording([path], None).attempts) == CALLS + 1
    assert "not replayed: 1 events of task pools" in replayed(path).output
    alone = replayed(written(tmp_path, json.dumps(task))).exception
    assert "Events of task pools are not replayed" in str(alone)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"captured_at": None}, "line 1: expected an event request_wait_started"),
        ({"request_resource_key": None}, "line 1: expected an event"),
        ({"request_resource_key": {"provider_name": 3, "model_id": "m"}}, "line 1: expected"),
        ({"diagnostics": {"weight": "heavy"}}, "line 1: expected an event"),
    ],
)
def test_an_event_of_another_shape_is_refused_by_line(
    tmp_path: Path, line: dict[str, Any], said: str
) -> None:
    whole = event("request_wait_started", "a", "atlas", BEGIN)
    refused = replayed(written(tmp_path, json.dumps(whole | line))).exception
    assert isinstance(refused, ConfigurationError)
    assert said in str(refused)


def test_a_recording_of_refusals_alone_and_an_empty_file_are_told(tmp_path: Path) -> None:
    refusals = attempt("refused", "atlas", BEGIN, BEGIN, BEGIN + 0.05, "rate_limited")
    told = outcomes(written(tmp_path, *map(json.dumps, refusals)), "--set", "cap=2")
    assert (told["happened"]["refusals"], told["cap=2"]["calls"]) == (1, 0)
    assert "found are: none" in str(replayed(written(tmp_path)).exception)


def test_a_separator_of_lines_inside_of_a_name_ends_no_line(tmp_path: Path) -> None:
    lines = [json.dumps(told, ensure_ascii=False) for told in recorded()]
    path = written(tmp_path, *(line.replace("borealis", "bore\u2028alis") for line in lines))
    assert len(read_recording([path], None).attempts) == CALLS + 1


def test_a_file_of_something_else_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("one\ntwo\n")
    refused = replayed(path).exception
    assert isinstance(refused, ConfigurationError)
    assert f"{path}, line 1: expected a JSON object" in str(refused)


async def test_what_a_sink_of_this_process_wrote_is_replayed(
    redis_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "real.jsonl"
    sink = JsonLinesSink(path)
    async with forebay.connect(redis_url, event_sinks=[sink]) as requests:
        await requests.register(MODEL, "main", CAP, AIMD)
        group = forebay.RequestGroupSpec(key="atlas", weight=2.5)
        for _ in range(3):
            lease = await requests.acquire(item(group=group))
            await requests.release(lease, forebay.SUCCESS)
    sink.close()
    recording = read_recording([path], None)
    assert [(one.group, one.weight) for one in recording.attempts] == [("atlas", 2.5)] * 3
    assert outcomes(path)["replayed"]["calls"] == 3
