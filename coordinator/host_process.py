"""Kinds of host processes: green threads are refused, cells of a notebook may block."""

from __future__ import annotations

import sys
import threading

from forebay.contracts.errors import ConfigurationError


def refuse_green_threads() -> None:
    """Refuse a process whose threads or sockets gevent or eventlet has replaced.

    An event loop there would seem to run in every green thread at once, and a heartbeat would wait
    for code that does not yield.

    Raises:
        ConfigurationError: it is such a process.
    """
    library = _green_library()
    if library is not None:
        raise ConfigurationError(
            f"{library} has monkey-patched the threads or sockets of this process, expected the"
            " system's own, for Forebay's event loop and heartbeat; call providers through `forebay"
            " proxy`, which needs nothing here, or run your workers in processes or threads."
        )


def _green_library() -> str | None:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and any(map(monkey.is_module_patched, ("thread", "socket", "select"))):
        return "gevent"
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and any(map(patcher.is_monkey_patched, ("thread", "socket", "select"))):
        return "eventlet"
    return None


def is_notebook_cell() -> bool:
    """Whether this thread runs the cells of a notebook: every blocking call there blocks a loop."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    is_main = threading.current_thread() is threading.main_thread()
    return kernel is not None and is_main and bool(kernel.IPKernelApp.initialized())
