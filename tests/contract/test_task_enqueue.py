"""``FairTaskQueue`` on a real server: what it takes and what it refuses, as values.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.task_policies import TaskAdmissionConfig
from forebay.contracts.tasks import TaskAdmissionError, TaskDenialReason
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.queue import MAX_PAYLOAD_BYTES
from tests.support_tasks import DONE, joined, task


@pytest.fixture
async def tasks(connection: ServerConnection) -> AsyncIterator[TaskAdmissionController]:
    async with joined(connection, functions=["known"]) as tasks:
        await tasks.configure(TaskAdmissionConfig(resource_limits={"gpu": 2}))
        yield tasks


async def nothing_waits(connection: ServerConnection, tasks: TaskAdmissionController) -> bool:
    """Whether no task waits and no job's key lies on the server."""
    left = [key async for key in connection.client.scan_iter("arq:*")]
    return (await tasks.queue.view()).queued_total == 0 and not left


# -- what is refused


@pytest.mark.parametrize(
    ("asked", "reason", "rule", "says"),
    [
        ({"tpu": 1}, "unknown_resource", TaskDenialReason.NEVER_FITS, "'tpu', which this pool"),
        ({"gpu": 3}, "never_fits", TaskDenialReason.NEVER_FITS, "more of 'gpu' than its limit"),
        (
            {"payload": b"x" * (MAX_PAYLOAD_BYTES + 1)},
            "payload_too_large",
            TaskDenialReason.POLICY_DENIAL,
            f"the most is {MAX_PAYLOAD_BYTES}; store it elsewhere",
        ),
    ],
)
@pytest.mark.parametrize("way", ["submit", "enqueue"])
async def test_task_that_cannot_be_taken_is_refused_with_nothing_queued(
    tasks: TaskAdmissionController,
    connection: ServerConnection,
    way: str,
    asked: dict[str, Any],
    reason: str,
    rule: TaskDenialReason,
    says: str,
) -> None:
    refused = task("t", **asked)
    with pytest.raises(TaskAdmissionError, match="task 't'") as failure:
        await (tasks.queue.submit(refused) if way == "submit" else tasks.queue.enqueue([refused]))

    assert (failure.value.reason, failure.value.denied.reason) == (reason, rule)
    assert failure.value.denied.item is refused
    assert says in str(failure.value)
    assert await nothing_waits(connection, tasks)


async def test_draining_pool_refuses_with_shutdown(
    tasks: TaskAdmissionController, connection: ServerConnection
) -> None:
    await tasks.set_state("draining")
    with pytest.raises(TaskAdmissionError, match="draining") as failure:
        await tasks.queue.submit(task("t"))

    assert failure.value.denied.reason is TaskDenialReason.SHUTDOWN
    assert await nothing_waits(connection, tasks)
    await tasks.set_state("open")
    assert await tasks.queue.submit(task("t"))


async def test_payload_of_the_most_bytes_is_taken(tasks: TaskAdmissionController) -> None:
    assert await tasks.queue.submit(task("t", payload=b"x" * MAX_PAYLOAD_BYTES))


async def test_id_that_stands_twice_in_one_call_is_refused_with_nothing_queued(
    tasks: TaskAdmissionController,
    connection: ServerConnection,
) -> None:
    with pytest.raises(TaskAdmissionError, match="'b' stands twice") as failure:
        await tasks.queue.enqueue([task("a"), task("b"), task("b")])

    assert failure.value.reason == "duplicate_id"
    assert await nothing_waits(connection, tasks)


async def test_too_large_a_payload_in_a_call_refuses_the_whole_call(
    tasks: TaskAdmissionController,
    connection: ServerConnection,
) -> None:
    large = task("b", payload=b"x" * (MAX_PAYLOAD_BYTES + 1))
    with pytest.raises(TaskAdmissionError, match="'b'"):
        await tasks.queue.enqueue([task("a"), large])

    assert await nothing_waits(connection, tasks)


async def test_first_refusal_of_a_call_is_told_and_the_others_are_queued(
    tasks: TaskAdmissionController,
) -> None:
    with pytest.raises(TaskAdmissionError, match="task 'b'") as failure:
        await tasks.queue.enqueue([task("a"), task("b", gpu=9), task("c", tpu=1), task("d")])

    assert failure.value.reason == "never_fits"
    admission = await tasks.admit(9)
    assert [lease.item.task_id for lease in admission.leases] == ["a", "d"]


@pytest.mark.parametrize("wrong", ["t", None, {"task_id": "t"}])
async def test_what_is_no_task_is_refused_as_a_wrong_argument(
    tasks: TaskAdmissionController, connection: ServerConnection, wrong: Any
) -> None:
    with pytest.raises(ConfigurationError, match="expected SchedulableTask"):
        await tasks.queue.enqueue([task("a"), wrong])
    with pytest.raises(ConfigurationError, match="expected SchedulableTask"):
        await tasks.queue.submit(wrong)

    assert await nothing_waits(connection, tasks)


async def test_payload_that_is_no_bytes_is_refused(tasks: TaskAdmissionController) -> None:
    with pytest.raises(ConfigurationError, match="of type str, expected bytes"):
        await tasks.queue.submit(task("t", payload="text"))


# -- submitting again


async def test_submitting_again_is_accepted_and_adds_nothing(
    tasks: TaskAdmissionController,
) -> None:
    assert await tasks.queue.submit(task("t"))
    assert not await tasks.queue.submit(task("t", payload=b"other"))
    assert await tasks.queue.enqueue([task("t"), task("u")]) == ["t", "u"]
    assert (await tasks.queue.view()).queued_total == 2
    (lease, _other) = (await tasks.admit(9)).leases
    assert lease.item.payload == b"payload"
    assert not await tasks.queue.submit(task("t"))
    assert (await tasks.finish(lease, DONE)).released
    assert not await tasks.queue.submit(task("t"))


async def test_discarded_task_is_new_when_it_comes_again(tasks: TaskAdmissionController) -> None:
    await tasks.queue.enqueue([task("a"), task("b")])
    assert await tasks.queue.discard("a")
    assert not await tasks.queue.discard("a")
    assert await tasks.queue.submit(task("a", payload=b"new"))
    leases = (await tasks.admit(9)).leases

    assert [(lease.item.task_id, lease.item.payload) for lease in leases] == [
        ("b", b"payload"),
        ("a", b"new"),
    ]
