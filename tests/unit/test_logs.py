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


FAIL = """
def inner(): raise ValueError('pay' + 'load')
try:
    try: inner()
    except ValueError as cause: raise KeyError('sec' + 'ret') from cause
except KeyError as error: log.unexpected('boom', error, shard='s')
"""


@pytest.mark.parametrize(
    "configure",
    [
        "",
        "import structlog; structlog.configure([structlog.processors.JSONRenderer()])",
        "import structlog; structlog.configure([structlog.dev.ConsoleRenderer(colors=False)])",
    ],
    ids=["standard library", "JSON", "console"],
)
def test_an_unexpected_exception_has_its_traceback_and_no_message(configure: str) -> None:
    out, error = said(f"{configure}\n{FAIL}")
    text = out + error
    assert "boom" in text
    assert "Traceback (most recent call last):" in text
    assert text.index("in inner") < text.rindex("KeyError")
    assert "error_type" in text
    assert "payload" not in text
    assert "secret" not in text


def test_a_traceback_stands_on_lines_of_its_own() -> None:
    _out, error = said(FAIL)
    assert error.splitlines()[0] == "event='boom' shard='s' error_type='KeyError'"
    assert error.splitlines()[-1] == "KeyError"


def test_a_program_whose_logging_raises_loses_an_event_and_nothing_else() -> None:
    configure = "import structlog; structlog.configure([lambda *_: 1 / 0])"
    out, error = said(f"{configure}\nlog.warning('loud'); print('went on')")
    assert out == "went on\n"
    assert "logging_failed" in error
    assert "lost_event='loud'" in error
