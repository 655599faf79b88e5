"""Faults of a server, and the calls that must end within their deadline under each of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import forebay
from forebay.coordinator.requests.administration import reset_window, set_override_cap
from forebay.coordinator.server.examination import examine
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import set_pool_state
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.snapshots import audit_pool, pool_lines
from forebay.workers.arq.pool import JobPool, create_pool
from tests.contract.chat_domain import CHAT, MODEL, item
from tests.support_proxy import FaultyProxy
from tests.support_tasks import task

T = TypeVar("T")

OTHER: Final = forebay.ProviderModelKey(provider_name="p", model_id="other")


def _everything(error: str) -> Callable[[FaultyProxy], None]:
    return lambda proxy: proxy.answer_all_with(error)


def _batches(error: str) -> Callable[[FaultyProxy], None]:
    return lambda proxy: proxy.answer_with(error)


def _reconnecting(error: str) -> Callable[[FaultyProxy], None]:
    def begin(proxy: FaultyProxy) -> None:
        proxy.answer_all_with(error)
        proxy.cut_all()

    return begin


FAULTS: Final[dict[str, Callable[[FaultyProxy], None]]] = {
    "it is gone": FaultyProxy.refuse,
    "it accepts, and says nothing (SIGSTOP, a network that swallows)": FaultyProxy.stall,
    "it hangs up": FaultyProxy.hang_up,
    "READONLY": _batches("READONLY You can't write against a read only replica."),
    "NOREPLICAS": _batches("NOREPLICAS Not enough good replicas to write."),
    "full memory": _batches("OOM command not allowed when used memory > 'maxmemory'."),
    "LOADING": _reconnecting("LOADING Redis is loading the dataset in memory"),
    "a busy script": _everything("BUSY Redis is busy running a script."),
    "maxclients": _reconnecting("ERR max number of clients reached"),
    "another password": _reconnecting("NOAUTH Authentication required."),
}
"""By name, what a proxy does."""


@dataclass(kw_only=True, slots=True)
class Caller:
    """A member of a shard and of a pool behind a proxy, with a lease to give back."""

    url: str
    settings: forebay.MemberSettings
    connection: ServerConnection
    requests: forebay.AdaptiveRequestAdmissionController
    tasks: TaskAdmissionController
    jobs: JobPool
    lease: forebay.RequestAdmissionLease

    async def connect(self) -> None:
        async with forebay.connect(self.url, self.settings):
            pass

    async def leave(self) -> None:
        """Close a controller of this connection that has joined."""
        await self.requests.close()


CALLS: Final[dict[str, Callable[[Caller], Awaitable[object]]]] = {
    "acquire": lambda caller: caller.requests.acquire(item()),
    "acquire, first of a model": lambda caller: caller.requests.acquire(
        forebay.RequestAdmissionItem(
            resource=forebay.RequestResourceKey(
                provider_model=forebay.ProviderModelKey(provider_name="p", model_id="third")
            )
        )
    ),
    "try_acquire": lambda caller: caller.requests.try_acquire(item()),
    "release": lambda caller: caller.requests.release(caller.lease, forebay.SUCCESS),
    "register": lambda caller: caller.requests.register(OTHER, "main", 2),
    "submit": lambda caller: caller.tasks.queue.submit(task("a")),
    "connect": Caller.connect,
    "snapshot": lambda caller: caller.requests.pressure.snapshot(CHAT),
    "snapshots": lambda caller: caller.requests.pressure.snapshots(),
    "audit": lambda caller: caller.requests.pressure.audit(MODEL),
    "show of a pool": lambda caller: pool_lines(caller.connection, "default"),
    "doctor": lambda caller: examine(
        caller.connection.client,
        caller.connection.address,
        timeout_seconds=caller.settings.call_timeout_seconds,
    ),
    "an operator's cap": lambda caller: set_override_cap(caller.connection, MODEL, 3),
    "acquire, from a thread": lambda caller: asyncio.to_thread(
        caller.requests.acquire_sync, item()
    ),
    "a pool's limit": lambda caller: caller.tasks.set_limit("gpu", 2),
    "a pool's state": lambda caller: set_pool_state(caller.connection, "default", "paused"),
    "a pool's queue": lambda caller: caller.tasks.queue.view(),
    "a pool's audit": lambda caller: audit_pool(caller.connection, "default"),
    "a window's reset": lambda caller: reset_window(caller.connection, CHAT),
    "enqueue_job": lambda caller: caller.jobs.enqueue_job("add", 1),
    "a job's status": lambda caller: caller.jobs.job("one").status(),
    "a job's result": lambda caller: caller.jobs.job("one").result_info(),
    "a job's info": lambda caller: caller.jobs.job("one").info(),
    "the jobs of a pool": lambda caller: caller.jobs.queued_jobs(),
    "the results of a pool": lambda caller: caller.jobs.all_job_results(),
}
"""By name, what is called; ``leave`` is called last of all."""


async def tried(call: Callable[[], Awaitable[T]]) -> T:
    """Return what a call to a server that works returns, tried until it does so in time."""
    while True:
        with contextlib.suppress(forebay.CoordinatorUnavailable):
            return await call()


@contextlib.asynccontextmanager
async def caller_behind(
    proxy: FaultyProxy, settings: forebay.MemberSettings
) -> AsyncIterator[Caller]:
    """Open a caller, and let it be served once."""
    async with (
        await ServerConnection.open(proxy.url, settings) as connection,
        await create_pool(proxy.url, settings=settings) as jobs,
    ):
        requests = forebay.AdaptiveRequestAdmissionController(connection)
        tasks = TaskAdmissionController(connection, "default")
        try:
            # However loaded this machine is: deadlines are short here.
            await tried(lambda: requests.register(MODEL, "main", 4))
            await tried(lambda: tasks.queue.submit(task("first")))
            await tried(lambda: jobs.enqueue_job("add", 1, _job_id="one"))
            lease = await tried(lambda: requests.acquire(item()))
            await tried(lambda: requests.pressure.snapshot(CHAT))
            yield Caller(
                url=proxy.url,
                settings=settings,
                connection=connection,
                requests=requests,
                tasks=tasks,
                jobs=jobs,
                lease=lease,
            )
        finally:
            proxy.flow()
            await proxy.accept()
            await tasks.close()
            await requests.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of a call.

    Attributes:
        seconds: after how long.
        how: the type of what it raised, or of what it returned.
    """

    seconds: float
    how: type


async def measured(call: Awaitable[object], most_seconds: float) -> Ended:
    """Return how a call ended; TimeoutError where it hangs for ``most_seconds``."""
    began_at = time.monotonic()
    async with asyncio.timeout(most_seconds):
        try:
            how = type(await call)
        except forebay.ForebayError as error:
            how = type(error)
    return Ended(seconds=time.monotonic() - began_at, how=how)
