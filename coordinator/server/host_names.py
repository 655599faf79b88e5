"""Lookup of servers' host names in threads that are never joined.

Rules: design 06, *Where it runs*.

asyncio looks names up in the executor of its loop, and the end of a loop waits for the threads of
its executor. So a resolver that says nothing would hold up each program that ends, and each call of
the sync face, which runs a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial

_Found = Sequence[str] | Exception

_lock = threading.Lock()
_under_way: dict[str, list[Callable[[_Found], None]]] = {}
"""By host, the callbacks of its lookup: a silent resolver is asked once, however many wait."""


async def addresses_of(host: str) -> Sequence[str]:
    """Return the addresses of a host, in the order in which they are to be tried.

    Raises:
        OSError: the name could not be looked up, such as `socket.gaierror`.
    """
    if _is_address(host):
        return [host]
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[str]] = loop.create_future()

    def deliver(outcome: _Found) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_settle, found, outcome)

    with _lock:
        waiting = _under_way.setdefault(host, [])
        waiting.append(deliver)
        is_first = len(waiting) == 1
    if is_first:
        _start(partial(_look_up, host))
    return await found


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _start(work: Callable[[], None]) -> None:
    """Run a function in a thread of its own; in this one while the program ends."""
    try:
        threading.Thread(target=work, name="forebay-host-name", daemon=True).start()
    except RuntimeError:
        work()


def _look_up(host: str) -> None:
    outcome: _Found
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        outcome = list(dict.fromkeys(str(address[0]) for *_, address in found))
    except Exception as error:  # noqa: BLE001 - every caller gets it
        outcome = error
    with _lock:
        waiting = _under_way.pop(host, [])
    for deliver in waiting:
        deliver(outcome)


def _settle(found: asyncio.Future[Sequence[str]], outcome: _Found) -> None:
    if found.done():
        return
    if isinstance(outcome, Exception):
        found.set_exception(copy.copy(outcome))  # one each: a traceback is of one task
    else:
        found.set_result(outcome)


def _forget() -> None:
    """Begin anew in a forked child, which has none of its parent's threads."""
    global _lock  # noqa: PLW0603 - it may be held by a thread that the child has not
    _lock = threading.Lock()
    _under_way.clear()


os.register_at_fork(after_in_child=_forget)
