"""Events of a stream whose data stands on several lines, or that no empty line ends."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.contracts.outcomes import TokenUsage
from forebay.workers.providers.answer_bodies import AnswerReader
from forebay.workers.providers.event_lines import MOST_DATA_BYTES, Event, EventLines

EVENTS = "text/event-stream"
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "{Overloaded}"}}
USED = {"choices": [], "usage": {"prompt_tokens": 25, "completion_tokens": 15}}


def on_lines(document: object, end: str, *, name: str = "") -> bytes:
    """Write a document as an event with a data line for each line of its JSON."""
    lines = [f"event: {name}"] if name else []
    lines += [f"data: {line}" for line in json.dumps(document, indent=2).splitlines()]
    return "".join(f"{line}{end}" for line in (*lines, "")).encode()


def read(stream: bytes, *borders: int) -> AnswerReader:
    reader = AnswerReader(EVENTS, "")
    cuts = sorted({0, len(stream), *(cut for cut in borders if cut < len(stream))})
    for start, end in itertools.pairwise(cuts):
        reader.feed(stream[start:end])
    return reader


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["", "error"])
@given(cuts=st.lists(st.integers(1, 300), max_size=8))
def test_an_error_on_several_data_lines_is_read(end: str, name: str, cuts: list[int]) -> None:
    content = on_lines({"choices": [{"delta": {"content": "}"}}]}, end)
    stream = content + on_lines(OVERLOADED, end, name=name)
    assert read(stream, *cuts).error_code == "overloaded_error"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@given(cuts=st.lists(st.integers(1, 200), max_size=8))
def test_a_usage_on_several_data_lines_is_read(end: str, cuts: list[int]) -> None:
    reader = read(on_lines(USED, end) + f"data: [DONE]{end}{end}".encode(), *cuts)
    assert reader.usage == TokenUsage(input_tokens=25, output_tokens=15)
    assert reader.has_ended
    assert reader.error_code is None


@given(cuts=st.lists(st.integers(1, 200), max_size=8))
def test_no_empty_line_between_events_is_needed(cuts: list[int]) -> None:
    documents = [{"choices": [{"delta": {"content": "a"}}]}, USED, OVERLOADED]
    stream = "".join(f"data: {json.dumps(one)}\n" for one in documents) + "data: [DONE]\n"
    reader = read(stream.encode(), *cuts)
    assert reader.usage == TokenUsage(input_tokens=25, output_tokens=15)
    assert reader.error_code == "overloaded_error"
    assert reader.has_ended


def test_an_events_name_ends_the_event_before_it() -> None:
    lines = b"event: a\ndata: plain\nevent: b\ndata: text\n\n"
    assert list(EventLines().events(lines)) == [Event("a", b"plain"), Event("b", b"text")]


def test_an_events_name_does_not_outlive_its_event() -> None:
    assert read(b"event: error\n\ndata: upstream is gone\n\n").error_code is None
    assert read(b"event: error\ndata: upstream is gone\n\n").error_code == "unnamed_error"


def test_data_without_an_end_is_bounded() -> None:
    lines = EventLines()
    for _ in range(4):
        assert list(lines.events(b"data: " + b"x" * (MOST_DATA_BYTES // 2) + b"\n")) == []
    (event,) = lines.events(b"\n")
    assert len(event.data) <= 2 * MOST_DATA_BYTES
