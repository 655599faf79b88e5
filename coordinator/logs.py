"""Loggers of Forebay's modules, silent below warnings until a program says otherwise."""

from __future__ import annotations

import logging
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger


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
                structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    def debug(self, event: str, **fields: Any) -> None:
        """Log what helps to understand Forebay itself."""
        self._chosen.debug(event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what an operator may want to know."""
        self._chosen.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what somebody should look at."""
        self._chosen.warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what went wrong."""
        self._chosen.error(event, **fields)

    @property
    def _chosen(self) -> FilteringBoundLogger:
        return self._structured if structlog.is_configured() else self._standard
