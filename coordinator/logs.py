"""Loggers of Forebay's modules, silent below warnings until a program says otherwise."""

from __future__ import annotations

import contextlib
import logging
import traceback
from typing import Any, Final

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

_render: Final = structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True)


class Logger:
    """Logs through the program's own structlog configuration, if it made one.

    Else through the standard library's ``logging``, under the same name: there a program sets
    levels and handlers as for any library, and without any, warnings go to stderr.

    Args:
        name: dotted, below ``forebay``.
    """

    def __init__(self, name: str) -> None:
        self._structured: FilteringBoundLogger = structlog.get_logger(name)
        self._standard: FilteringBoundLogger = structlog.wrap_logger(
            logging.getLogger(name),
            processors=[
                structlog.stdlib.filter_by_level,
                _render_with_stack,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    def debug(self, event: str, **fields: Any) -> None:
        """Log a detail for debugging Forebay itself."""
        self._log("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log a fact for operators."""
        self._log("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log a condition that an operator should check."""
        self._log("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log a failure."""
        self._log("error", event, fields)

    def unexpected(self, event: str, error: BaseException, **fields: Any) -> None:
        """Log an unexpected exception, with its type and its traceback.

        The exception's message is left out, as it may quote a payload or a secret
        (design 01, *Invariants* 9).
        """
        text = _traceback_of(error)
        self._log("error", event, {**fields, "error_type": type(error).__qualname__, "stack": text})

    def _log(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """Log; a processor or handler of the program that raises loses this event alone."""
        chosen = self._structured if structlog.is_configured() else self._standard
        try:
            getattr(chosen, level)(event, **fields)
        except Exception as error:  # noqa: BLE001 - the program's code; ours must go on
            lost = {"lost_event": event, "error_type": type(error).__qualname__}
            with contextlib.suppress(Exception):
                self._standard.error("logging_failed", **lost)


def _render_with_stack(logger: WrappedLogger, method: str, fields: EventDict) -> str:
    """Render an event as one line, and its traceback, if it has one, on lines of its own."""
    stack = fields.pop("stack", None)
    line = str(_render(logger, method, fields))
    return line if stack is None else f"{line}\n{stack}"


def _traceback_of(error: BaseException) -> str:
    """Return an exception's traceback, with those of its causes, without any message."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.insert(0, cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n\n".join(
        "Traceback (most recent call last):\n"
        + "".join(traceback.format_tb(link.__traceback__))
        + type(link).__qualname__
        for link in chain
    )
