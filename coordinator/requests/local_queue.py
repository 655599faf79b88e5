"""Attempts that wait for a lease while the server is away, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from forebay.contracts.identity import RequestDomain
from forebay.contracts.requests import RequestAdmissionItem

T = TypeVar("T")

_Line = deque[tuple[RequestAdmissionItem, asyncio.Future[T]]]


class LocalQueue(Generic[T]):
    """The waiting attempts of one process, in one line for each domain."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: dict[RequestDomain, _Line[T]] = {domain: deque() for domain in RequestDomain}

    def has(self, domain: RequestDomain) -> bool:
        """Whether an attempt waits in a domain."""
        return bool(self._lines[domain])

    def wait(self, item: RequestAdmissionItem) -> asyncio.Future[T]:
        """Let an attempt wait behind the others of its domain; return its future decision."""
        decided: asyncio.Future[T] = self._loop.create_future()
        self._lines[item.resource.domain].append((item, decided))
        return decided

    def decide(
        self,
        how: Callable[[RequestAdmissionItem], T],
        is_ready: Callable[[RequestAdmissionItem], bool] = lambda _item: True,
    ) -> None:
        """Decide about attempts in turn, in each line up to the first that is not ready.

        Args:
            how: returns the decision.
            is_ready: whether an attempt can be decided now.
        """
        for line in self._lines.values():
            while line and (line[0][1].done() or is_ready(line[0][0])):
                item, decided = line.popleft()
                if not decided.done():
                    decided.set_result(how(item))
