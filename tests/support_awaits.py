"""Makes each await of a coroutine raise in turn, and tells which lines were reached."""

from __future__ import annotations

import ast
import asyncio
import itertools
import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Place = tuple[str, int]
"""A file and a line in it."""


class ThrownAt:
    """Lets a coroutine's n-th wait end with an exception, once; a cancellation ends it at once.

    Args:
        place: which wait, from 1, over all the coroutines that it is awaited with.
        error: what is thrown.

    Attributes:
        through: the lines that waited, from the outermost on, when it was thrown; empty before.
        times_said: how often the log told of it; kept here for the test.
    """

    def __init__(self, place: int, error: BaseException) -> None:
        self._place = place
        self._error = error
        self._waits = 0
        self.through: list[Place] = []
        self.times_said = 0

    @types.coroutine
    def into(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Await a coroutine."""
        step: Callable[[], Any] = partial(coroutine.send, None)
        while True:
            try:
                waited_for = step()
            except StopIteration as returned:
                return returned.value
            self._waits += 1
            is_place = self._waits == self._place
            if is_place:
                self.through = list(_lines_of(coroutine))
                if isinstance(self._error, asyncio.CancelledError) and waited_for is not None:
                    waited_for.cancel()  # as a task's cancel() does
            try:
                sent = yield waited_for
            except BaseException as error:  # noqa: BLE001 - the coroutine's to handle
                step = partial(coroutine.throw, error)
            else:
                step = (
                    partial(coroutine.throw, self._error)
                    if is_place
                    else partial(coroutine.send, sent)
                )


def throw_into(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, thrown: ThrownAt) -> None:
    """Let an exception be thrown into a method of a class."""
    original = getattr(owner, method)

    async def broken(self: Any) -> Any:
        return await thrown.into(original(self))

    monkeypatch.setattr(owner, method, broken)


async def each_wait(
    situation: Callable[[ThrownAt], AbstractAsyncContextManager[None]],
    error: Callable[[], BaseException],
) -> set[Place]:
    """Play a situation with an exception at its first wait, its second, and so on to its last.

    Returns:
        The lines at which it was thrown.
    """
    reached: set[Place] = set()
    for place in itertools.count(1):
        thrown = ThrownAt(place, error())
        async with situation(thrown):
            pass
        if not thrown.through:
            return reached
        reached.update(thrown.through)
    raise AssertionError("a situation always ends")


def awaits_of(modules: Iterable[ModuleType], *, but: set[str]) -> dict[Place, set[Place]]:
    """Return the awaits of modules: where each stands, and the lines that it covers.

    Args:
        modules: where they are looked for.
        but: names of functions that are left out, and the awaits of their calls.
    """
    found: dict[Place, set[Place]] = {}
    for module in modules:
        name = str(module.__file__)
        for function in ast.walk(ast.parse(Path(name).read_text())):
            if isinstance(function, ast.AsyncFunctionDef) and function.name not in but:
                for node in ast.walk(function):
                    if isinstance(node, ast.Await) and _callee(node) not in but:
                        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                        found[name, node.lineno] = {(name, line) for line in lines}
    return found


def _callee(node: ast.Await) -> str | None:
    """Return the name of the function or method whose call is awaited."""
    called = node.value.func if isinstance(node.value, ast.Call) else None
    return getattr(called, "attr", getattr(called, "id", None))


def _lines_of(coroutine: Any) -> Generator[Place, None, None]:
    waits = coroutine
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None:
            yield frame.f_code.co_filename, frame.f_lineno
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
