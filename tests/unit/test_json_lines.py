"""Events as lines of a file: complete, in order, and counted where they are lost (issue 19.1)."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.contracts.event_kinds import RequestEventKind, SchedulerEventKind
from forebay.contracts.events import EventStream, EventSubject, RuntimeCorrelation, RuntimeEvent
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.coordinator.event_outlet import EventOutlet
from forebay.sinks import JsonLinesSink, MemorySink, json_lines
from forebay.sinks.json_lines import LINES_PER_WRITE

ATTEMPT = EventSubject(
    stream=EventStream.REQUEST,
    correlation=RuntimeCorrelation(run_id="run-1"),
    request_attempt_id="attempt-1",
    request_resource_key=RequestResourceKey(
        provider_model=ProviderModelKey(provider_name="p", model_id="m")
    ),
)


def tell(*sinks: Any, **fields: Any) -> EventOutlet:
    outlet = EventOutlet(sinks)
    outlet.emit(RequestEventKind.REQUEST_WAIT_STARTED, ATTEMPT, (5.0, 17), **fields)
    return outlet


def told(count: int) -> list[RuntimeEvent]:
    kept = MemorySink()
    for _ in range(count):
        tell(kept)
    return list(kept.events)


def test_json_lines_hold_each_event_with_its_correlation(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with JsonLinesSink(path) as sink:
            tell(sink)
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert len(lines) == 2
    assert lines[0]["event_kind"] == "request_wait_started"
    assert lines[0]["correlation"] == {"run_id": "run-1"}
    assert lines[0]["request_resource_key"] == {
        "provider_name": "p", "model_id": "m", "domain": "chat"
    }  # fmt: skip


def test_lines_are_the_json_of_their_events(tmp_path: Path) -> None:
    kept, path = MemorySink(), tmp_path / "events.jsonl"
    odd = EventSubject(
        stream=EventStream.SCHEDULER,
        correlation=RuntimeCorrelation(run_id='"\n\u2028é', row_group=0),
        task_id="\\\x00",
        scheduler_resource_key="gpu",
    )
    details = {"n": 1, "x": 0.1, "yes": True, "none": None, "text": '"', "nested": {"a": [1, 2.5]}}
    with JsonLinesSink(path) as sink:
        outlet = EventOutlet([kept, sink])
        outlet.emit(SchedulerEventKind.SELECTED, odd, (1e9, 3), snapshot=details, reason="\t")
        outlet.emit(SchedulerEventKind.SELECTED, odd, (None, None))
        outlet.emit(
            RequestEventKind.REQUEST_LEASE_ACQUIRED,
            ATTEMPT,
            (1764000000.123456, 0),
            lease_id="ü",
            diagnostics=details,
        )
    selected, early, acquired = map(json.loads, path.read_bytes().decode().splitlines())
    of_odd = {
        "event_kind": "selected",
        "stream": "scheduler",
        "correlation": {"run_id": '"\n\u2028é', "row_group": 0},
        "task_id": "\\\x00",
        "scheduler_resource_key": "gpu",
    }
    assert selected == of_odd | {
        "captured_at": 1e9, "ordinal": 1, "sequence": 3, "snapshot": details,
        "reason_or_outcome": "\t",
    }  # fmt: skip
    at = early.pop("captured_at")
    assert at == kept.events[1].captured_at
    assert early == of_odd | {"ordinal": 2, "diagnostics": {"clock": "process"}}
    assert acquired == {
        "event_kind": "request_lease_acquired", "stream": "request", "ordinal": 3, "sequence": 0,
        "captured_at": 1764000000.123456, "correlation": {"run_id": "run-1"},
        "request_attempt_id": "attempt-1", "request_lease_id": "ü", "diagnostics": details,
        "request_resource_key": {"provider_name": "p", "model_id": "m", "domain": "chat"},
    }  # fmt: skip


def test_an_event_with_a_value_that_json_has_not_loses_its_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with capture_logs() as logged, JsonLinesSink(path) as sink:
        for value in (float("nan"), object(), 1.0):
            tell(sink, diagnostics={"value": value})
    [line] = path.read_text().splitlines()
    assert (json.loads(line)["diagnostics"], sink.dropped) == ({"value": 1.0}, 2)
    assert {line["event"] for line in logged} == {"events_not_written", "events_written_again"}


def test_full_disk_drops_lines_counts_them_and_says_so_once() -> None:
    with capture_logs() as logged, JsonLinesSink("/dev/full") as sink:
        for _ in range(LINES_PER_WRITE + 1):
            tell(sink)
    assert sink.dropped == LINES_PER_WRITE + 1
    [line] = logged
    assert (line["event"], line["fault"]) == ("events_not_written", "No space left on device")


def test_the_line_that_a_full_disk_cut_off_spoils_no_later_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "events.jsonl", os.write
    room = [len(told(1)[0].as_json_text()) + 20]  # a line and a part of one

    def write_some(file: int, data: bytes) -> int:
        taken = write(file, data[: room[0]])
        if not taken:
            room[0] = 10_000  # from now on
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= taken
        return taken

    monkeypatch.setattr(json_lines.os, "write", write_some)
    sink = JsonLinesSink(path)
    for lines in (2, 1):
        sink._waiting.extend(told(lines))
        sink._write_all()
    sink.close()
    first, torn, last = path.read_text().splitlines()
    assert json.loads(first)["event_kind"] == json.loads(last)["event_kind"]
    assert torn == first[: len(torn)]
    assert sink.dropped == 1


def test_a_file_that_cannot_be_opened_is_named_when_the_sink_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing/events\.jsonl"):
        JsonLinesSink(tmp_path / "missing" / "events.jsonl")


def test_a_closed_file_takes_no_event_and_says_how_to_close(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "events.jsonl")
    sink.close()
    sink.close()
    assert tell(sink).lost == {"JsonLinesSink": 1}
    with pytest.raises(OSError, match="close it after the connection"):
        sink.take(told(1)[0])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # what it is about
def test_a_forked_child_writes_its_own_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonLinesSink(path, flush_seconds=3600.0)
    tell(sink, reason="of_parent")
    child = os.fork()
    if not child:
        try:
            tell(sink, reason="of_child")
            sink.close()
        finally:
            os._exit(0)  # nothing of the test's is to be cleaned up twice
    os.waitpid(child, 0)
    sink.close()
    lines = [json.loads(line)["reason_or_outcome"] for line in path.read_text().splitlines()]
    assert lines == ["of_child", "of_parent"]
