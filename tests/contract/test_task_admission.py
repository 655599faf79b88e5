"""``TaskAdmissionController`` on a real server: views, explanations, limits, pools (design 04)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.contracts.identity import TaskGroupKind
from forebay.contracts.task_policies import (
    BoundedBorrowTaskAdmissionPolicyConfig,
    DebtCeiling,
    TaskAdmissionConfig,
)
from forebay.contracts.tasks import TaskAdmissionError, TaskDenialReason
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from tests.support import wait_until
from tests.support_tasks import DONE, group, joined, task


@pytest.fixture
async def tasks(connection: ServerConnection) -> AsyncIterator[TaskAdmissionController]:
    async with joined(connection) as tasks:
        await tasks.configure(TaskAdmissionConfig(resource_limits={"gpu": 2}))
        yield tasks


# -- looking


async def test_view_of_the_queue_says_who_waits_for_what(tasks: TaskAdmissionController) -> None:
    heavy, light = group("heavy", weight=2.0, limit=1), group("light")
    await tasks.queue.enqueue(
        [
            task("h0", heavy, gpu=1),
            task("h1", heavy, gpu=1),
            task("l0", light, gpu=2),
            task("l1", light),
        ]
    )
    await tasks.admit(1)
    view = await tasks.queue.view()

    assert view.queued_total == 3
    assert view.queued_by_group == {"local/light": 2, "local/heavy": 1}
    assert view.demand_by_group == {
        "local/light": {"gpu": 2, "submission": 2},
        "local/heavy": {"gpu": 1, "submission": 1},
    }
    assert view.groups == {"local/heavy": heavy, "local/light": light}
    assert view.first_candidates["local/light"] == {"gpu": 2, "submission": 1}
    assert view.considered == ("local/heavy",)
    assert view.peer_demand == {"gpu": 1, "submission": 1}


async def test_view_of_the_ledger_says_what_is_out_and_owed(
    tasks: TaskAdmissionController,
) -> None:
    ceiling = DebtCeiling(kind=TaskGroupKind.LOCAL, identity=("g",), resource="gpu", units=1)
    config = BoundedBorrowTaskAdmissionPolicyConfig(default_ceiling=0, ceilings=(ceiling,))
    await tasks.configure(
        TaskAdmissionConfig(submission_capacity=9, resource_limits={"gpu": 2}, borrow=config)
    )
    await tasks.queue.enqueue([task(f"t{i}", group(limit=5), gpu=1) for i in range(3)])
    await tasks.admit(9)
    view = await tasks.view()

    assert view.limits == {"gpu": 2, "submission": 9}
    assert view.available == {"gpu": 0, "submission": 7}
    assert view.leased == {"gpu": 2, "submission": 2}
    assert view.leased_by_group == {"local/g": {"gpu": 2, "submission": 2}}
    assert view.running_by_group == {"local/g": 2}
    assert view.debt_by_group == {"local/g": {"gpu": 1}}


async def test_view_leaves_out_what_is_kept(tasks: TaskAdmissionController) -> None:
    await tasks.configure(
        TaskAdmissionConfig(resource_limits={"gpu": 2}, reserve_after_seconds=0.001)
    )
    await tasks.queue.submit(task("busy", gpu=1))
    await tasks.admit(1)
    await tasks.queue.submit(task("large", group("large"), gpu=2))

    async def is_kept() -> bool:
        return (await tasks.view()).available["gpu"] == 0

    await wait_until(is_kept)
    await tasks.queue.submit(task("small", group("small"), gpu=1))
    view, blocked = await tasks.queue.view(), await tasks.explain_blocked()
    assert (view.considered, view.peer_demand) == ((), {})
    assert blocked.reasons == {TaskDenialReason.NO_CAPACITY: 1, TaskDenialReason.RESERVED: 1}


async def test_looking_changes_nothing(
    tasks: TaskAdmissionController, connection: ServerConnection
) -> None:
    async def stored() -> list[bytes | None]:
        keys = [key for key in tasks.keys.all if key != tasks.keys["members"]]  # heartbeats go on
        return [await connection.client.dump(key) for key in keys]

    await tasks.queue.enqueue([task("a"), task("b", delay_seconds=60.0)])
    await tasks.explain_blocked()  # the script is composed once, which takes its time
    before = await stored()
    await tasks.view()
    await tasks.queue.view()
    await tasks.explain_blocked()

    assert await stored() == before


async def test_explanation_names_reasons_counts_and_when_it_may_change(
    tasks: TaskAdmissionController,
) -> None:
    await tasks.queue.enqueue([task(f"t{i}", gpu=1) for i in range(5)])
    await tasks.queue.submit(task("later", delay_seconds=3600.0))
    admission = await tasks.admit(9)
    blocked = await tasks.explain_blocked()

    assert admission.blocked is not None
    assert (admission.blocked.queued_count, blocked.queued_count) == (3, 3)
    assert admission.blocked.reasons == {TaskDenialReason.NO_CAPACITY: 1}  # groups
    assert blocked.reasons == {TaskDenialReason.NO_CAPACITY: 3}  # tasks
    acquired_at = admission.leases[0].acquired_at
    assert blocked.available_at == pytest.approx(acquired_at + 3600, abs=60)
    assert (blocked.diagnostics["delayed"], blocked.diagnostics["parked"]) == (1, 0)
    assert blocked.diagnostics["tasks_by_resource"] == {"gpu": 3}
    (sentence,) = blocked.diagnostics["sentences"]
    assert "local/g: The first task asks for 1 of gpu; 2 of its limit 2" in sentence


async def test_nothing_blocked_is_explained_by_no_reason(tasks: TaskAdmissionController) -> None:
    await tasks.queue.submit(task("t"))
    assert (await tasks.explain_blocked()).reasons == {}
    admission = await tasks.admit(9)

    assert (len(admission.leases), admission.blocked) == (1, None)
    assert (await tasks.explain_blocked()).queued_count == 0


# -- limits that change


async def test_raised_limit_lets_more_run_and_a_lowered_one_takes_nothing_away(
    tasks: TaskAdmissionController,
) -> None:
    await tasks.queue.enqueue([task(f"t{i}", gpu=1) for i in range(5)])
    leases = list((await tasks.admit(9)).leases)
    assert await tasks.set_limit("gpu", 4, holder="config") == 4
    leases += (await tasks.admit(9)).leases
    assert len(leases) == 4
    assert await tasks.set_limit("gpu", 1, holder="operator") == 1

    assert (await tasks.view()).available["gpu"] == 0
    assert [(await tasks.finish(lease, DONE)).released for lease in leases[:3]] == [True] * 3
    assert (await tasks.admit(9)).leases == ()
    assert await tasks.drop_limit("gpu", holder="operator") == 4
    assert len((await tasks.admit(9)).leases) == 1


async def test_task_above_a_lowered_limit_is_explained_as_one_that_never_fits(
    tasks: TaskAdmissionController,
) -> None:
    await tasks.queue.submit(task("t", gpu=2))
    await tasks.set_limit("gpu", 1, holder="operator")
    blocked = await tasks.explain_blocked()

    assert (blocked.queued_count, blocked.reasons) == (0, {TaskDenialReason.NEVER_FITS: 1})
    assert blocked.diagnostics["parked"] == 1


# -- several pools


async def test_pools_of_one_process_are_apart(
    tasks: TaskAdmissionController, connection: ServerConnection
) -> None:
    async with joined(connection, "other") as other:
        await other.configure(TaskAdmissionConfig(submission_capacity=1))
        await tasks.set_state("paused")
        await tasks.queue.enqueue([task("a"), task("b")])
        await other.queue.enqueue([task("c"), task("d")])

        assert (await tasks.admit(9)).leases == ()
        (lease,) = (await other.admit(9)).leases
        assert (lease.item.task_id, (await other.explain_blocked()).queued_count) == ("c", 1)
        with pytest.raises(TaskAdmissionError, match="'gpu', which this pool does not have"):
            await other.queue.submit(task("e", gpu=1))


async def test_an_admit_that_crosses_a_close_leaves_no_lease(
    connection: ServerConnection, tasks: TaskAdmissionController
) -> None:
    leaving = TaskAdmissionController(connection, tasks.pool)
    await leaving.set_limit("gpu", 2)
    await tasks.queue.submit(task("t"))
    closed, admitted = await asyncio.gather(
        leaving.close(), leaving.admit(1), return_exceptions=True
    )
    assert closed is None
    assert isinstance(admitted, CoordinatorUnavailable)
    assert [lease.item.task_id for lease in (await tasks.admit(1)).leases] == ["t"]
