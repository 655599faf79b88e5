"""Each record that arq writes is known, so that none shows what a job carries (docs/arq.md)."""

from __future__ import annotations

import ast
import inspect
import logging

import arq.jobs
import arq.worker
import pytest
import structlog

from forebay.workers.arq.log import EVENTS, WorkerFacts, event_of, log_events, logged_as

FACTS = WorkerFacts(pool="p", server="redis://h:1/0", slots=2, health_check_key="k")
UNREACHED = {
    "job %s already running elsewhere",
    "multi-exec error, job %s already started elsewhere",
    "Windows does not support adding a signal handler to an eventloop",
    "Health check failed: no health check sentinel value found",
    "Health check successful: %s",
}
"""Of arq's own start protocol, its health check, and Windows."""


def templates_of(module):
    """Return the templates of all calls of a module's logger."""
    calls = list(ast.walk(ast.parse(inspect.getsource(module))))
    found = set()
    for call in calls:
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and isinstance(call.func.value, ast.Name)
            and call.func.value.id == "logger"
        ):
            found.add(ast.literal_eval(call.args[0]))
    return found


def test_every_record_of_the_installed_arq_is_known():
    assert templates_of(arq.worker) | templates_of(arq.jobs) == {*EVENTS} | UNREACHED


def record_of(template, *args, level=logging.INFO, exc_info=None):
    return logging.LogRecord("arq.worker", level, __file__, 1, template, args, exc_info)


def test_a_failure_is_told_by_type_and_place_without_its_message():
    with pytest.raises(ValueError, match="secret") as raised:
        int("secret")
    failed = (ValueError, raised.value, raised.value.__traceback__)
    record = record_of(
        "%6.2fs ! %s failed, %s: %s",
        *(1.23456, "one:job", "ValueError", "secret"),
        level=logging.ERROR,
        exc_info=failed,
    )
    event = event_of(record)
    place = event.pop("raised_at")
    assert event == {
        "event": "job_failed",
        "function": "one:job",
        "seconds": 1.235,
        "error": "ValueError",
    }
    assert place.startswith("test_arq_log.py:")
    assert "secret" not in place


def test_a_record_that_is_not_known_loses_its_arguments():
    assert event_of(record_of("something new %s", "secret")) == {
        "event": "arq",
        "template": "something new %s",
    }


def test_the_counts_of_a_health_record_are_numbers():
    said = "Nov-30 06:01:46 j_complete=4 j_failed=1 j_retried=2 j_ongoing=3 queued=5"
    assert event_of(record_of("recording health: %s", said)) == {
        "event": "health_recorded",
        "complete": 4,
        "failed": 1,
        "retried": 2,
        "ongoing": 3,
        "queued": 5,
    }


def test_a_redis_server_is_described_by_fields():
    said = "redis_version=7.2.4 mem_usage=1.87M clients_connected=1 db_keys=15"
    assert event_of(record_of(said)) == {
        "event": "server_described",
        "redis_version": "7.2.4",
        "mem_usage": "1.87M",
        "clients_connected": 1,
        "db_keys": 15,
    }


STARTED = "%6.2fs → %s(%s)%s"


@pytest.fixture
def logger():
    log_events()
    log_events()
    return logging.getLogger("arq.worker")


def test_records_of_a_worker_become_events_of_the_same_logger(logger, caplog):
    caplog.set_level(logging.INFO, logger="arq")
    with logged_as(FACTS):
        logger.info(STARTED, 0.5, "one:job", "'secret'", "")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("arq.worker", "INFO")
    assert record.getMessage() == ("event='job_started' function='one:job' waited_seconds=0.5")


def test_records_of_other_workers_are_left_as_they_are(logger, caplog):
    caplog.set_level(logging.INFO, logger="arq")
    logger.info(STARTED, 0.5, "one:job", "'shown'", "")
    assert caplog.messages == ["  0.50s → one:job('shown')"]


def test_events_go_to_the_structlog_of_the_program(logger, caplog):
    caplog.set_level(logging.INFO, logger="arq")
    with structlog.testing.capture_logs() as said, logged_as(FACTS):
        structlog.configure(processors=structlog.get_config()["processors"])
        logger.warning("%6.2fs ! %s max retries %d exceeded", 0.5, "one:job", 5)
        logger.info("Setting allow_pick_jobs to `False`")
    assert said == [
        {
            "event": "tries_exhausted",
            "function": "one:job",
            "max_tries": 5,
            "log_level": "warning",
        }
    ]
    assert caplog.messages == []
