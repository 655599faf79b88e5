"""How transports in threads join: once for each process, however many ask at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

import forebay
from forebay.connecting import Connection
from forebay.transports import admission, blocking_admission
from forebay.transports.admission import AsyncAdmission
from forebay.transports.blocking_admission import BlockingAdmission
from forebay.transports.joined import RegisterAs
from tests.contract.chat_domain import MODEL

THREADS = 8
STARTS = 50
OTHER = forebay.ProviderModelKey(provider_name="p", model_id="other")


class Joins:
    """Stands for `forebay.connect` and counts who enters."""

    def __init__(self) -> None:
        self.entered = 0
        self.left = 0
        self.controller: Any = object()

    def __enter__(self) -> Any:
        self.entered += 1
        return self.controller

    def leave_soon(self) -> None:
        """Nothing takes long here."""

    def __exit__(self, *_: object) -> None:
        self.left += 1

    async def __aenter__(self) -> Any:
        self.entered += 1  # what is cancelled from here on was never left
        await asyncio.sleep(0)
        return self.controller

    async def __aexit__(self, *_: object) -> None:
        self.left += 1


@pytest.fixture
def joins(monkeypatch: pytest.MonkeyPatch) -> Joins:
    joins = Joins()
    for module in (admission, blocking_admission):
        monkeypatch.setattr(module, "connect", lambda *_, **__: joins)
    return joins


@pytest.mark.parametrize("is_forked", [False, True], ids=["first calls", "in a forked child"])
def test_threads_that_ask_first_at_the_same_time_join_once(
    joins: Joins, is_forked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(THREADS)

    def process_id() -> int:
        together.wait(10)  # whoever has to find out where it runs does so with all others
        return -1

    for _ in range(STARTS):
        asked = BlockingAdmission("redis://nowhere", None)
        if is_forked:
            asked.ready(MODEL)
        joins.entered = 0
        with monkeypatch.context() as child, ThreadPoolExecutor(THREADS) as threads:
            child.setattr(blocking_admission, "os", SimpleNamespace(getpid=process_id))
            given = set(threads.map(asked.ready, [MODEL] * THREADS))
        assert (len(given), joins.entered) == (1, 1)


def test_who_has_left_joins_no_more(joins: Joins) -> None:
    asked = BlockingAdmission("redis://nowhere", None)
    assert asked.ready(MODEL) is asked.ready(MODEL)
    asked.close()
    asked.close()
    with pytest.raises(forebay.CoordinatorUnavailable, match="closed"):
        asked.ready(MODEL)
    assert (joins.entered, joins.left) == (1, 1)


def test_who_closes_while_another_thread_joins_leaves_after_it(
    joins: Joins, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_joining, goes_on = threading.Event(), threading.Event()

    def enter(_: Joins) -> Any:
        is_joining.set()
        assert goes_on.wait(10)
        joins.entered += 1
        return joins.controller

    monkeypatch.setattr(Joins, "__enter__", enter)
    asked = BlockingAdmission("redis://nowhere", None)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(asked.ready, MODEL)
        assert is_joining.wait(10)
        second = threads.submit(asked.ready, MODEL)
        closing = threads.submit(asked.close)
        goes_on.set()
        closing.result(10)
        assert first.result(10) is joins.controller
        assert second.exception(10) is None or isinstance(
            second.exception(), forebay.CoordinatorUnavailable
        )
    assert (joins.entered, joins.left) == (1, 1)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_client_that_is_closed_during_its_first_call_stays_no_member(
    joins: Joins, turns: int, is_cancelled: bool
) -> None:
    asked = AsyncAdmission("redis://nowhere", None)
    first = asyncio.create_task(asked.ready(MODEL))
    for _ in range(turns):
        await asyncio.sleep(0)
    if is_cancelled:
        first.cancel()
    await asked.aclose()
    await asyncio.gather(first, return_exceptions=True)
    assert joins.entered == joins.left


async def test_who_is_cancelled_while_it_joins_joins_for_the_next_one(joins: Joins) -> None:
    asked = AsyncAdmission("redis://nowhere", None)
    first, second = (asyncio.create_task(asked.ready(MODEL)) for _ in range(2))
    for _ in range(2):
        await asyncio.sleep(0)
    first.cancel()
    assert await second is joins.controller
    assert (joins.entered, first.cancelled()) == (1, True)


@pytest.mark.parametrize("runs", [True, False])
def test_a_second_event_loop_is_refused_only_while_the_first_one_runs(
    joins: Joins, runs: bool
) -> None:
    asked = AsyncAdmission("redis://nowhere", None)

    async def ask() -> Any:
        return await asked.ready(MODEL)

    async def ask_beside() -> Any:
        await ask()
        return await asyncio.to_thread(asyncio.run, ask())

    if runs:
        with pytest.raises(forebay.ConfigurationError, match="second event loop"):
            asyncio.run(ask_beside())
        assert (joins.entered, joins.left) == (1, 0)
    else:
        assert asyncio.run(ask()) is asyncio.run(ask())
        assert (joins.entered, joins.left) == (2, 1)


async def _close(asked: AsyncAdmission) -> None:
    async with asyncio.timeout(5):
        await asked.aclose()


def test_a_client_whose_loop_ended_while_it_joined_is_closed_on_another(
    joins: Joins, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def enter(_: Joins) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(Joins, "__aenter__", enter)
    asked = AsyncAdmission("redis://nowhere", None)
    stopped = asyncio.new_event_loop()
    try:
        with pytest.raises(TimeoutError):
            stopped.run_until_complete(asyncio.wait_for(asked.ready(MODEL), 0.01))
        asyncio.run(_close(asked))
    finally:
        for task in asyncio.all_tasks(stopped):
            task.cancel()
        stopped.run_until_complete(asyncio.sleep(0))
        stopped.close()


def test_a_client_that_nobody_closed_leaves_when_the_program_ends(joins: Joins) -> None:
    asked = BlockingAdmission("redis://nowhere", None)
    asked.ready(MODEL)
    for _ in range(2):
        blocking_admission._leave_all()
        assert (joins.entered, joins.left) == (1, 1)


def test_clients_that_nobody_closed_leave_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = threading.Barrier(2)

    @asynccontextmanager
    async def admitted() -> AsyncIterator[Any]:
        yield SimpleNamespace()
        together.wait(5)
        left.append(1)

    left: list[int] = []
    monkeypatch.setattr(blocking_admission, "connect", lambda *_, **__: Connection(admitted()))
    for _ in range(2):
        BlockingAdmission("redis://nowhere", None).ready(MODEL)
    blocking_admission._leave_all()
    assert left == [1, 1]


async def test_callers_of_a_join_that_was_cancelled_by_others_get_a_typed_error(
    joins: Joins,
) -> None:
    asked = AsyncAdmission("redis://nowhere", None)
    first, second = (asyncio.create_task(asked.ready(MODEL)) for _ in range(2))
    await asyncio.sleep(0)
    for joining in list(asked._joining):
        joining.cancel()
    ended = await asyncio.gather(first, second, return_exceptions=True)
    assert {type(error) for error in ended} == {forebay.CoordinatorUnavailable}
    assert await asked.ready(MODEL) is joins.controller


def test_a_client_that_cannot_leave_when_the_program_ends_is_said_and_holds_up_no_other(
    joins: Joins, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave, broken = Joins.__exit__, []

    def raise_once(self: Joins, *error: object) -> None:
        if not broken:
            broken.append(1)
            raise ValueError
        leave(self, *error)

    monkeypatch.setattr(Joins, "__exit__", raise_once)
    monkeypatch.setattr(blocking_admission, "_to_leave", {joins, other := Joins()})
    with capture_logs() as logs:
        blocking_admission._leave_all()
    assert (joins.left + other.left, len(broken)) == (1, 1)
    assert [entry["event"] for entry in logs] == ["unexpected_exception"]


def test_a_model_that_is_registered_does_not_wait_for_one_that_is_being(joins: Joins) -> None:
    is_registering, goes_on = threading.Event(), threading.Event()

    def register(provider_model: forebay.ProviderModelKey, *_: object) -> None:
        if provider_model == OTHER:
            is_registering.set()
            assert goes_on.wait(10)

    joins.controller = SimpleNamespace(register=register)
    asked = BlockingAdmission(
        "redis://nowhere",
        RegisterAs(max_parallel_requests=1, config=forebay.RequestAdmissionConfig()),
    )
    asked.ready(MODEL)
    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(asked.ready, OTHER)
        assert is_registering.wait(10)
        assert threads.submit(asked.ready, MODEL).result(5) is joins.controller
        goes_on.set()
        assert other.result(5) is joins.controller
