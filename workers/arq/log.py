"""arq's log of a worker as events with fields, without jobs' payloads (docs/arq.md).

arq writes arguments, results and messages of exceptions into its log; a log holds none of these
(design 01, *Invariants* 9). So each record that a `ForebayWorker` makes arq write is turned into an
event with names, ids, numbers and types. It goes to the program's own structlog configuration, if
it made one, else through the same logger of the standard library, whose levels and handlers stay in
force. Records of other arq workers in the process are left as they are.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import structlog

from forebay.coordinator.logs import Logger
from forebay.coordinator.runs.plan import CELL_FUNCTION
from forebay.workers.arq.cell_jobs import lease_of_job

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """The facts of a worker that its log shows at the start.

    Attributes:
        pool: name of its task pool.
        server: address of its server, without secrets.
        slots: jobs at once.
        health_check_key: where it records its health.
    """

    pool: str
    server: str
    slots: int
    health_check_key: str


logging_worker: ContextVar[WorkerFacts | None] = ContextVar("forebay_logging_worker", default=None)
"""The worker whose arq code runs in this context."""

log = Logger("arq.forebay")
"""The logger of code that replaces arq's; below ``arq``, to take its level and handlers."""

_LOGGERS: Final = ("arq.worker", "arq.jobs")
_render: Final = structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True)


@contextlib.contextmanager
def logged_as(facts: WorkerFacts) -> Iterator[None]:
    """Run arq's code of a worker, whose records become events, for the length of the block."""
    token = logging_worker.set(facts)
    try:
        yield
    finally:
        logging_worker.reset(token)


def _started(functions: str, facts: WorkerFacts | None) -> Fields:
    names = [name for name in functions.split(", ") if name != CELL_FUNCTION]
    if facts is None:
        return {"functions": names}
    return {
        "pool": facts.pool,
        "server": facts.server,
        "slots": facts.slots,
        "functions": names,
        "health_check_key": facts.health_check_key,
    }


def _numbers(text: str) -> Fields:
    """Return the pairs of a text such as ``j_complete=1 queued=2`` as fields."""
    pairs = re.findall(r"(\w+)=(\S+)", text)
    return {
        name.removeprefix("j_"): int(value) if value.isdigit() else value for name, value in pairs
    }


def _stopping(signal: str, complete: int, failed: int, retried: int, ongoing: int) -> Fields:
    return {
        "signal": signal,
        "complete": complete,
        "failed": failed,
        "retried": retried,
        "ongoing": ongoing,
    }


def _job(**fields: Any) -> Fields:
    """Return fields of an event of the job that runs here, its id and try first."""
    lease = lease_of_job.get(None)
    if lease is None:
        return fields
    return {"job_id": lease.item.task_id, "job_try": lease.item.job_try, **fields}


def _function(ref: str) -> str:
    """Return the function in arq's reference to a job, ``id:function`` or ``function``."""
    lease = lease_of_job.get(None)
    return ref if lease is None else ref.removeprefix(f"{lease.item.task_id}:")


def _begun(waited: float, ref: str, _arguments: str, extra: str) -> Fields:
    fields = _job(function=_function(ref), waited_seconds=round(waited, 3))
    if delayed := re.search(r"delayed=([\d.]+)s", extra):
        fields["delayed_seconds"] = float(delayed[1])
    return fields


def _ended(seconds: float, ref: str, *_result: Any) -> Fields:
    return _job(function=_function(ref), seconds=round(seconds, 3))


EVENTS: Final[Mapping[str, tuple[str, Callable[..., Fields]] | None]] = {
    "Starting worker for %d functions: %s": (
        "worker_started",
        lambda _count, functions: _started(functions, logging_worker.get()),
    ),
    "job %s expired": ("job_expired", lambda job_id: _job(job_id=job_id)),
    "deserializing job %s failed": ("job_unreadable", lambda job_id: _job(job_id=job_id)),
    "%6.2fs ⊘ %s:%s aborted before start": (
        "job_aborted",
        lambda _seconds, _job_id, function: _job(function=function, was_started=False),
    ),
    "job %s, function %r not found": (
        "function_not_found",
        lambda _job_id, function: _job(function=function),
    ),
    "%6.2fs ! %s max retries %d exceeded": (
        "tries_exhausted",
        lambda _seconds, ref, most: _job(function=_function(ref), max_tries=most),
    ),
    "%6.2fs → %s(%s)%s": ("job_started", _begun),
    "%6.2fs ↻ %s retrying job in %0.2fs": (
        "job_retried",
        lambda seconds, ref, defer: _ended(seconds, ref) | {"defer_seconds": defer},
    ),
    "%6.2fs ⊘ %s aborted": ("job_aborted", _ended),
    "%6.2fs ↻ %s cancelled, will be run again": ("job_cancelled", _ended),
    "%6.2fs ! %s failed, %s: %s": ("job_failed", _ended),
    "%6.2fs ← %s ● %s": ("job_completed", _ended),
    "recording health: %s": ("health_recorded", _numbers),
    "shutdown on %s, wait complete ◆ %d jobs complete ◆ %d failed ◆ %d retries ◆ %d ongoing to"
    " cancel": ("grace_ended", _stopping),
    "Setting allow_pick_jobs to `False`": None,  # the next record says it
    "shutdown on %s ◆ %d jobs complete ◆ %d failed ◆ %d retries ◆ %d to be completed": (
        "worker_stopping",
        _stopping,
    ),
    "shutdown on %s ◆ %d jobs complete ◆ %d failed ◆ %d retries ◆ %d ongoing to cancel": (
        "worker_stopping",
        _stopping,
    ),
    "error serializing result of %s": (
        "result_not_serializable",
        lambda ref: _job(function=_function(ref)),
    ),
    "error serializing result of %s even after replacing result": (
        "result_lost",
        lambda ref: _job(function=_function(ref)),
    ),
}
"""arq's records by their templates: the event and its fields, or None for nothing."""


class _WithoutPayloads(logging.Filter):
    """Turns records of Forebay's workers into events."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a record, or send its event to structlog in its place."""
        if logging_worker.get() is None:
            return True
        event = event_of(record)
        if event is None:
            return False
        if structlog.is_configured():
            said = structlog.get_logger(record.name)
            said.log(record.levelno, event.pop("event"), **event)
            return False
        record.msg, record.args = _render(None, "", event), ()
        record.exc_info = record.exc_text = None
        return True


def event_of(record: logging.LogRecord) -> Fields | None:
    """Return the event that replaces a log record of arq; None for none."""
    template = str(record.msg)
    if template.startswith("redis_version="):
        return {"event": "server_described", **_numbers(template)}
    if template not in EVENTS:
        return {"event": "arq", "template": template}
    known = EVENTS[template]
    lease = lease_of_job.get(None)
    is_of_a_run = lease is not None and lease.item.cell is not None
    if known is None or (is_of_a_run and record.levelno < logging.ERROR):
        return None
    name, fields_of = known
    arguments: Sequence[Any] = record.args if isinstance(record.args, tuple) else ()
    return {"event": name, **fields_of(*arguments), **_error(record)}


def _error(record: logging.LogRecord) -> Fields:
    """Return the type of a record's exception and where it was raised, without its message."""
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    kind, _error, traceback = record.exc_info
    return {"error": kind.__qualname__, "raised_at": _place_of(traceback)}


def _place_of(traceback: TracebackType | None) -> str:
    place = "unknown"
    while traceback is not None:
        code = traceback.tb_frame.f_code
        place = f"{Path(code.co_filename).name}:{traceback.tb_lineno} in {code.co_name}"
        traceback = traceback.tb_next
    return place


def log_events() -> None:
    """Turn records of Forebay's workers into events from now on; once is enough."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _WithoutPayloads) for known in logger.filters):
            logger.addFilter(_WithoutPayloads())
