"""Logging of the commands: to standard error, or by a program's own dictionary."""

from __future__ import annotations

import logging
import logging.config
import os
import sys
from typing import Any, Final

import structlog

from forebay.contracts.errors import ConfigurationError

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


def log_to_stderr(level: str) -> None:
    """Log events of a level or above as lines with time, level, event and fields.

    Args:
        level: one of `LEVELS`.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
                sort_keys=False,
                exception_formatter=structlog.dev.plain_traceback,  # others show local variables
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("arq").setLevel(LEVELS[level])  # a worker's events come by way of arq's


def log_to_standard_library() -> None:
    """Log through ``logging``, as configured by a program or `log_by_dictionary`."""
    structlog.reset_defaults()


def log_by_dictionary(dictionary: Any) -> None:
    """Configure the standard library as a dictionary of ``logging.config.dictConfig`` says.

    Forebay's own loggers, ``forebay`` and below, stay enabled where the dictionary does not name
    them: what it says of arq would else make their warnings silent.

    Raises:
        ConfigurationError: it is no such dictionary.
    """
    try:
        logging.config.dictConfig(dictionary)
    except Exception as error:  # the handlers' own code may raise anything
        raise ConfigurationError(
            f"--custom-log-dict cannot be used ({error}), expected a dict as"
            " logging.config.dictConfig takes it; correct it."
        ) from error
    for name in logging.root.manager.loggerDict:
        if name.split(".")[0] == "forebay":
            logging.getLogger(name).disabled = False
