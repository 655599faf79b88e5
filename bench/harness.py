"""Base of scenarios: event loop, processes that take orders, rounds, final audit."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import multiprocessing
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Concatenate, Final, Self, TypeVar

from bench.figures import Figure, Iterations
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import how_to_install
from forebay.contracts.identity import ProviderModelKey, RequestDomain
from forebay.contracts.settings import RequestAdmissionConfig
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection

STARTUP_SECONDS: Final = 0.1
"""From giving orders to the instant at which every process begins."""
POLL_SECONDS: Final = 0.005

Progress = Callable[[str], object]
Item = TypeVar("Item")


def told(cap: int) -> RequestAdmissionConfig:
    """Return settings of windows that begin at their cap, as their climb is not measured."""
    return RequestAdmissionConfig(initial_limits=dict.fromkeys(RequestDomain, cap))


class InvariantBrokenError(Exception):
    """An invariant that holds on any machine was broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a scenario.

    Attributes:
        inputs: what it was given, JSON-compatible.
        iterations: the measures of each round, by name.
        figures: what is said of them.
        final_request_snapshots: the shards at the end, by provider/model.
        final_task_snapshots: the pools at the end, by name.
        timelines: the events of a pool, of the last run of each kind; a file each.
        output_hashes: of what was written, by what it was.
    """

    inputs: dict[str, Any]
    iterations: Iterations
    figures: Sequence[Figure]
    final_request_snapshots: dict[str, Any] | None = None
    final_task_snapshots: dict[str, Any] | None = None
    timelines: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    output_hashes: Mapping[str, str] | None = None


# -- the loop: uvloop on both sides of every ratio, or no measurement


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new uvloop loop.

    Raises:
        ConfigurationError: uvloop is not installed.
    """
    try:
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    except ImportError as error:
        raise ConfigurationError(
            "uvloop is not installed, expected it, as figures under another loop compare with none"
            f" of the published ones; run {how_to_install('uvloop')}."
        ) from error
    return loop


def loop_name() -> str:
    """Return the loop that everything here is measured under, with its version."""
    return f"uvloop {metadata.version('uvloop')}"


def new_runner() -> asyncio.Runner:
    """Return a runner of that loop."""
    return asyncio.Runner(loop_factory=new_event_loop)


# -- processes


class Orders:
    """The orders that a process gets, one after another; each is answered with ``answer``.

    Attributes:
        process: the number of this process.
    """

    def __init__(self, pipe: Connection, process: int) -> None:
        self.process = process
        self._pipe = pipe

    def answer(self, reply: Any) -> None:
        """Send a reply to the one who gave the order."""
        self._pipe.send(reply)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Say that this process is ready, then yield orders until the fleet closes."""
        self.answer("ready")
        while (order := await asyncio.to_thread(self._pipe.recv)) is not None:
            yield order


Serve = Callable[Concatenate[Orders, ...], Awaitable[None]]


def _serve(pipe: Connection, process: int, serve: Serve, args: tuple[Any, ...]) -> None:
    async def main() -> None:
        await serve(Orders(pipe, process), *args)

    with new_runner() as runner:
        runner.run(main())


class Fleet:
    """Processes that take orders, closed in good order or killed.

    Args:
        count: how many.
        serve: what each runs, a function of a module: called with its orders and ``args``.
        args: what can be pickled.
    """

    def __init__(self, count: int, serve: Serve, *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, number, serve, args), daemon=True
            )
            process.start()
            theirs.close()  # so that the end of the process ends our recv
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        try:
            for index in range(len(self._pipes)):
                self._answer_of(index)
        except BaseException:
            self._kill_all()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            for pipe in self._pipes:
                with contextlib.suppress(BrokenPipeError):  # one that was killed by its scenario
                    pipe.send(None)
            for process in self._processes:
                process.join(60)
        self._kill_all()

    def ask(self, orders: Mapping[int, Any]) -> list[Any]:
        """Give each named process its order, all at once, and return their answers in that order.

        Raises:
            InvariantBrokenError: a process ended instead of answering.
        """
        for index, order in orders.items():
            self._pipes[index].send(order)
        return [self._answer_of(index) for index in orders]

    def process_id(self, index: int) -> int:
        """Return a process's id."""
        process_id = self._processes[index].pid
        assert process_id is not None
        return process_id

    def kill(self, index: int) -> float:
        """Kill a process (SIGKILL) and return the instant, by CLOCK_MONOTONIC, just before."""
        killed_at = time.monotonic()
        self._processes[index].kill()
        return killed_at

    def _answer_of(self, index: int) -> Any:
        try:
            return self._pipes[index].recv()
        except EOFError as error:
            raise InvariantBrokenError(
                f"process {index} ended instead of answering; expected it to serve until the end;"
                " see its traceback above."
            ) from error

    def _kill_all(self) -> None:
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.kill()
            process.join()
            pipe.close()


# -- rounds


def rotated(items: Sequence[Item], number: int) -> list[Item]:
    """Return the items in round ``number``'s order, so that a slow moment meets all in turn."""
    turn = number % len(items)
    return [*items[turn:], *items[:turn]]


def repeat(
    name: str, rounds: int, measure: Callable[[int], dict[str, float]], progress: Progress
) -> Iterations:
    """Measure ``rounds`` times and return each round's measures with its ``wall_time_seconds``."""
    iterations = []
    for number in range(rounds):
        start = time.monotonic()
        measures = measure(number)
        wall_seconds = time.monotonic() - start
        iterations.append({**measures, "wall_time_seconds": wall_seconds})
        progress(f"{name}: round {number + 1} of {rounds} took {wall_seconds:.1f} s")
    return iterations


# -- the shared state


async def wait_for_state(
    predicate: Callable[[], Awaitable[bool]], what: str, seconds: float = 60.0
) -> None:
    """Wait until the shared state is as expected.

    Raises:
        InvariantBrokenError: not within the seconds.
    """
    deadline = time.monotonic() + seconds
    while not await predicate():
        if time.monotonic() > deadline:
            raise InvariantBrokenError(f"expected within {seconds:g} s: {what}; please report it.")
        await asyncio.sleep(POLL_SECONDS)


def final_snapshots(url: str, *provider_models: ProviderModelKey) -> dict[str, Any]:
    """Return the snapshot of each shard after a run.

    Raises:
        InvariantBrokenError: a lease or a waiter is, or the books do not agree.
    """

    async def look() -> dict[str, Any]:
        async with await ServerConnection.open(url) as connection:
            provider = RequestPressureSnapshotProvider(connection)
            return {
                str(shard): {
                    "snapshot": (await provider.global_snapshot(shard)).model_dump(mode="json"),
                    "audit": (await provider.audit(shard)).model_dump(mode="json"),
                }
                for shard in provider_models
            }

    with new_runner() as runner:
        found = runner.run(look())
    for shard, left in found.items():
        snapshot = left["snapshot"]
        is_empty = not (snapshot["aggregate_in_flight"] or snapshot["waiters"])
        if not is_empty or not left["audit"]["ok"]:
            raise InvariantBrokenError(
                f"{shard} was left as {left}, expected no lease, no waiter and books that agree;"
                " this is a defect, please report it."
            )
    return found
