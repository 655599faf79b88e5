"""Where Forebay's log events go: nowhere near stdout until a program asks for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

SAY = "from forebay.coordinator.logs import Logger\nlog = Logger('forebay.test')\n"
EVENTS = "log.debug('quiet'); log.info('quieter'); log.warning('loud', shard='s', tries=2)"


def said(program: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", SAY + program], capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


def test_a_program_that_configured_nothing_hears_warnings_on_stderr() -> None:
    assert said(EVENTS) == ("", "event='loud' shard='s' tries=2\n")


def test_the_standard_library_sets_levels() -> None:
    basic = "import logging; logging.basicConfig(level=logging.INFO, format='%(name)s %(message)s')"
    out, error = said(f"{basic}\n{EVENTS}")
    assert out == ""
    assert error.splitlines() == [
        "forebay.test event='quieter'",
        "forebay.test event='loud' shard='s' tries=2",
    ]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_programs_own_structlog_is_used(when: str) -> None:
    configure = "import structlog; structlog.configure([structlog.processors.JSONRenderer()])"
    program = f"{configure}\n{EVENTS}" if when == "before" else f"{EVENTS}\n{configure}\n{EVENTS}"
    out, _error = said(program)
    assert '{"shard": "s", "tries": 2, "event": "loud"}' in out.splitlines()
