"""A server's absence and its return are said once each, and equally loud."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.coordinator.server.availability import Availability
from forebay.coordinator.server.urls import parse_url

GONE = OSError("gone")


@pytest.fixture
def availability() -> Availability:
    return Availability(parse_url("redis://user:a-secret@localhost:6379/0"))


def said(logs: list[Any]) -> list[tuple[str, str]]:
    assert {entry["log_level"] for entry in logs} <= {"warning"}
    return [(entry["event"].removeprefix("coordinator_"), entry["noticed_by"]) for entry in logs]


def test_an_outage_is_said_once_when_it_begins_and_once_when_it_ends(
    availability: Availability,
) -> None:
    calls = availability.state_of("calls", shard="s")
    with capture_logs() as logs:
        for _ in range(3):
            for _ in range(100):
                calls.lost(GONE)
            for _ in range(100):
                calls.back()
    assert said(logs) == [("unavailable", "calls"), ("available", "calls")] * 3
    assert logs[0]["shard"] == logs[1]["shard"] == "s"
    assert "a-secret" not in str(logs)


def test_what_everybody_notices_is_said_by_one(availability: Availability) -> None:
    connections = [availability.state_of(name) for name in ("wake-ups", "calls", "heartbeat")]
    with capture_logs() as logs:
        for connection in connections:
            connection.lost(GONE)
        for connection in reversed(connections):
            connection.back()
    assert said(logs) == [("unavailable", "wake-ups"), ("available", "wake-ups")]


def test_who_still_fails_when_the_first_is_back_says_so(availability: Availability) -> None:
    calls, heartbeat = availability.state_of("calls"), availability.state_of("heartbeat")
    with capture_logs() as logs:
        calls.lost(GONE)
        heartbeat.lost(GONE)
        calls.back()
        heartbeat.lost(GONE)
        heartbeat.back()
    assert said(logs) == [
        ("unavailable", "calls"),
        ("available", "calls"),
        ("unavailable", "heartbeat"),
        ("available", "heartbeat"),
    ]


def test_a_connection_that_was_closed_while_lost_silences_no_other(
    availability: Availability,
) -> None:
    closed, calls = availability.state_of("driver"), availability.state_of("calls")
    with capture_logs() as logs:
        closed.lost(GONE)
        closed.forget()
        calls.lost(GONE)
        closed.back()
        calls.back()
    assert said(logs) == [
        ("unavailable", "driver"),
        ("unavailable", "calls"),
        ("available", "calls"),
    ]


def test_a_connection_that_was_never_lost_says_nothing(availability: Availability) -> None:
    with capture_logs() as logs:
        availability.state_of("calls").back()
    assert logs == []


def test_an_error_without_words_is_said_by_its_type(availability: Availability) -> None:
    with capture_logs() as logs:
        availability.state_of("calls").lost(TimeoutError())
    assert logs[0]["error"] == "TimeoutError"
