"""Tasks that are pushed to a process of the fleet, on a real server (design 04, ADR 0010)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from forebay.contracts.errors import CoordinatorFull
from forebay.contracts.settings import MemberSettings
from forebay.contracts.tasks import Admission, TaskAdmissionLease
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.operations import Admit
from tests.support import wait_until
from tests.support_tasks import Work, joined, task

Listen = Callable[[str, list[Any]], None]


@pytest.fixture
async def tasks(connection: ServerConnection) -> AsyncIterator[TaskAdmissionController]:
    async with joined(connection) as tasks:
        yield tasks


@pytest.fixture
async def worker(redis_url: str, connection: ServerConnection) -> AsyncIterator[Work]:
    """A worker that is idle and looks for work of its own accord too seldom to matter."""
    settings = MemberSettings(recheck_seconds=60.0)
    async with (
        await ServerConnection.open(redis_url, settings) as own,
        joined(own) as tasks,
    ):
        work = Work(connection, tasks, 2)
        await work.be_idle()
        yield work


def between(worker: Work, meddle: Callable[[str, list[Any], Listen], None]) -> None:
    """Let a function stand between what is told to a worker and the worker."""
    listen = worker.tasks.on_notices
    worker.tasks.on_notices = lambda generation, notices: meddle(generation, notices, listen)


async def test_lone_task_starts_at_an_idle_member_with_its_payload(
    worker: Work, tasks: TaskAdmissionController
) -> None:
    for name, payload in (("plain", b"payload"), ("other", "é".encode())):
        await tasks.queue.submit(task(name, payload=payload))
        await wait_until(lambda name=name: name in worker.names)

    assert [lease.item.payload for lease in worker.started] == [b"payload", None]
    assert worker.tasks.seen == 2
    assert all(worker.tasks.is_held(lease) for lease in worker.started)
    await worker.finish()


async def test_a_start_that_raises_keeps_no_other_task_of_its_ask_from_starting(
    connection: ServerConnection, tasks: TaskAdmissionController, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Work(connection, tasks, 3, takes_pushes=False)
    raised: list[TaskAdmissionLease] = []
    start = worker._start

    def raise_first(lease: TaskAdmissionLease) -> None:
        if not raised:
            raised.append(lease)
            raise ValueError
        start(lease)

    monkeypatch.setattr(worker.puller, "_start", raise_first)
    await worker.be_idle()
    await tasks.queue.enqueue([task("a"), task("b"), task("c")])
    await wait_until(lambda: len(worker.names) == 2)

    assert raised[0].item.task_id not in worker.names
    assert not worker.tasks.is_held(raised[0])
    await worker.finish()


async def test_notice_that_comes_twice_starts_its_task_once(
    worker: Work, tasks: TaskAdmissionController
) -> None:
    def repeat(generation: str, notices: list[Any], listen: Listen) -> None:
        listen(generation, notices)
        listen(generation, notices)

    between(worker, repeat)
    await tasks.queue.submit(task("t"))
    await wait_until(lambda: bool(worker.names))

    assert worker.names == ["t"]


async def test_notice_behind_a_lost_one_starts_nothing_and_asks_for_both(
    worker: Work, tasks: TaskAdmissionController
) -> None:
    lost: list[Any] = []

    def lose_first(generation: str, notices: list[Any], listen: Listen) -> None:
        if lost:
            listen(generation, notices)
            assert worker.names == []
        lost.extend(notices)

    between(worker, lose_first)
    for name in ("a", "b"):
        await tasks.queue.submit(task(name))
    await wait_until(lambda: len(worker.names) == 2)

    assert [notice[:2] for notice in lost] == [["task", 1], ["task", 2]]
    assert worker.names == ["a", "b"]
    assert [lease.item.payload for lease in worker.started] == [b"payload", b"payload"]


async def test_task_that_an_ask_under_way_is_told_again_starts_once(
    worker: Work, tasks: TaskAdmissionController
) -> None:
    await tasks.queue.submit(task("t"))
    await wait_until(lambda: bool(worker.names))
    admitted = await worker.tasks.session.ask(Admit(0, 60.0, (), seen=0))
    admission = worker.tasks.take_admission(admitted)

    assert list(admitted.pushed) == [1]
    assert (admission.leases, worker.tasks.seen) == ((), 1)


async def test_member_that_is_stopping_gives_back_what_is_pushed_to_it(
    worker: Work, tasks: TaskAdmissionController
) -> None:
    def stop_first(generation: str, notices: list[Any], listen: Listen) -> None:
        worker.puller.stop()
        listen(generation, notices)

    between(worker, stop_first)
    await tasks.queue.submit(task("t"))

    async def is_back() -> bool:
        return (await tasks.queue.view()).queued_total == 1

    await wait_until(is_back)
    (lease,) = (await tasks.admit(1)).leases
    assert (worker.names, lease.item.job_try) == ([], 1)


@pytest.mark.parametrize("names", [["a"], ["a", "b"]], ids=["pushed", "woken"])
async def test_process_without_a_slot_keeps_no_task_from_an_idle_one(
    worker: Work, redis_url: str, tasks: TaskAdmissionController, names: list[str]
) -> None:
    """As one whose jobs are over but for their last hook, of which the pool knows nothing."""
    settings = MemberSettings(recheck_seconds=60.0)
    async with await ServerConnection.open(redis_url, settings) as own, joined(own) as others:
        idle = Work(own, others, 1)
        await idle.be_idle()
        worker.slots = 0  # the pool knows of two
        await tasks.queue.enqueue([task(name) for name in names])
        await wait_until(lambda: idle.names == ["a"])
        assert worker.names == []
        worker.slots = 1
        worker.puller.look()
        await idle.finish()
        await wait_until(lambda: idle.names + worker.names == names[1:])
        await worker.finish()
        await idle.finish()


async def test_task_that_is_pushed_to_a_full_process_comes_with_its_slot(
    worker: Work, tasks: TaskAdmissionController
) -> None:
    worker.slots = 0
    await tasks.queue.submit(task("t"))

    async def is_back() -> bool:
        return (await tasks.queue.view()).queued_total == 1

    await wait_until(is_back)
    worker.slots = 1
    worker.puller.look()
    await wait_until(lambda: worker.names == ["t"])
    assert worker.started[0].item.job_try == 1


async def test_member_that_takes_no_pushes_asks_for_its_tasks(
    connection: ServerConnection, tasks: TaskAdmissionController
) -> None:
    async with joined(connection) as taker:
        work = Work(connection, taker, 1, takes_pushes=False)
        await work.be_idle()
        await tasks.queue.submit(task("t"))
        await wait_until(lambda: work.names == ["t"])

        assert taker.seen is None
        await work.finish()


async def test_ask_that_crosses_a_push_leaves_its_member_asking_for_more(
    redis_url: str, tasks: TaskAdmissionController
) -> None:
    """The reply tells of the pushed task alone: that is not to say that there are no others."""
    settings = MemberSettings(recheck_seconds=60)
    async with (
        await ServerConnection.open(redis_url, settings) as connection,
        joined(connection) as taker,
    ):
        work = Work(connection, taker, 1)
        await work.be_idle()
        held: list[Any] = []

        def hold(_generation: str, notices: list[Any], listen: Listen) -> None:
            held.extend(notices)
            listen("", [["work"]])

        take_admission = taker.take_admission

        def deliver_first(*answer: Any) -> Admission:
            taker.on_notices = listen
            listen("", held)
            return take_admission(*answer)

        listen = taker.on_notices
        between(work, hold)
        taker.take_admission = deliver_first
        await tasks.queue.submit(task("crossing"))
        await wait_until(lambda: work.names == ["crossing"])
        await tasks.queue.enqueue([task("a"), task("b")])
        await work.finish()
        work.puller.look()
        await wait_until(lambda: bool(work.names))

        await work.finish()
        await tasks.queue.discard("b")


async def test_tasks_that_are_told_again_start_as_slots_are_free(
    worker: Work, tasks: TaskAdmissionController
) -> None:
    def lose(_generation: str, _notices: list[Any], _listen: Listen) -> None:
        worker.slots = 1

    listen = worker.tasks.on_notices
    between(worker, lose)
    for name in ("a", "b"):
        await tasks.queue.submit(task(name))
    await wait_until(lambda: worker.slots == 1)
    worker.tasks.on_notices = listen
    worker.puller.look()
    listen("", [["work"]])
    await wait_until(lambda: worker.names == ["a"])
    await worker.finish()
    worker.puller.look()
    await wait_until(lambda: worker.names == ["b"])
    await worker.finish()


async def test_member_that_is_stopping_says_again_that_it_takes_no_more(
    redis_url: str, tasks: TaskAdmissionController
) -> None:
    """Else each task that it gives back would be pushed to it again."""
    settings = MemberSettings(recheck_seconds=0.05)
    async with (
        await ServerConnection.open(redis_url, settings) as connection,
        joined(connection) as taker,
    ):
        work = Work(connection, taker, 1)
        await work.be_idle()
        submit = taker.session.submit

        def fail(_make: Any, told: Any) -> None:
            taker.session.submit = submit
            told(CoordinatorFull("no memory is left"))

        taker.session.submit = fail
        work.puller.stop()

        async def is_known() -> bool:
            return not await connection.client.exists(taker.keys["idle"])

        await wait_until(is_known)


async def test_tasks_that_come_in_the_turn_of_a_cancellation_go_back(
    tasks: TaskAdmissionController,
) -> None:
    await tasks.queue.submit(task("t"))
    take_reply = tasks.session._batches.take_reply
    asking = asyncio.ensure_future(tasks.admit(1))

    def take_and_cancel(*reply: Any, **more: Any) -> None:
        take_reply(*reply, **more)
        tasks.session._batches.take_reply = take_reply
        asking.cancel()

    tasks.session._batches.take_reply = take_and_cancel
    with pytest.raises(asyncio.CancelledError):
        await asking

    async def is_back() -> bool:
        return (await tasks.queue.view()).queued_total == 1

    await wait_until(is_back)
    (lease,) = (await tasks.admit(1)).leases
    assert lease.item.job_try == 1
