"""Whatever ends a repair of a shard's connection or of the wake-ups, it is begun again.

Rules: design 06, *Members*.

Each await of joining and repairing raises in turn. They are found by running them, so a new one is
tried as well; the last test fails where one was not reached.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

import forebay
from forebay.coordinator.requests.registering import Sweep
from forebay.coordinator.server import link, wakeups, wire
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.link import Link
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server.wakeups import Subscriber
from forebay.coordinator.shard import join_call, joining, session
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Background
from tests.contract.chat_domain import MODEL, item
from tests.support import wait_until
from tests.support_awaits import Place, ThrownAt, awaits_of, each_wait, throw_into
from tests.support_libraries import replace_library
from tests.support_records import make_overdue
from tests.support_scene import Controller, settings, soon

NEVER_SECONDS = 60.0
SECRET = "a secret"  # no line of a traceback quotes it, only the message does
SETTINGS = settings(recheck_seconds=NEVER_SECONDS)
ERRORS: dict[str, Callable[[], BaseException]] = {
    "a bug": lambda: ValueError(SECRET),
    "a cancellation": asyncio.CancelledError,
    "a broken connection": lambda: OSError("gone"),
}
ENDS_ITSELF = {"close", "stop"}
WAITS_ON_A_CLUSTER_ALONE = {"_follow", "list_shard", "find"}
WENT_WRONG = {"unexpected_exception", "coordinator_unavailable"}
WENT_WELL = {"recovered", "coordinator_available"}


def session_of(requests: Controller) -> Session:
    return next(iter(requests._shards.values())).session


def forget_functions(url: str) -> None:
    """Let the server know no script, so that connecting loads them."""
    with open_sync(parse_url(url)) as client:
        client.function_flush()


async def use(requests: Controller) -> None:
    """Acquire and release once."""
    lease = await soon(requests.acquire(item()))
    assert (await soon(requests.release(lease, forebay.SUCCESS))).released


@contextlib.contextmanager
def said_once(thrown: ThrownAt) -> Any:
    """Check that what went wrong was said once, without its message, and its end as well.

    Nothing is said where redis-py makes up for it, as it connects again by itself.
    """
    with capture_logs() as logs:
        yield
    loud = [entry for entry in logs if entry["log_level"] in {"warning", "error"}]
    went_wrong = [entry for entry in loud if entry["event"] in WENT_WRONG]
    went_well = [entry for entry in loud if entry["event"] in WENT_WELL]
    assert len(went_wrong) == len(went_well) <= bool(thrown.through), logs
    thrown.times_said = len(went_wrong)
    for entry in went_wrong:
        if entry["event"] == "unexpected_exception":
            assert "Traceback" in entry["stack"]
            assert SECRET not in str(entry)


# -- what is repaired


@contextlib.asynccontextmanager
async def first_join(url: str, thrown: ThrownAt, patch: Any) -> AsyncIterator[None]:
    forget_functions(url)
    throw_into(patch, Link, "_make_whole", thrown)
    async with forebay.connect(url, SETTINGS) as requests:
        with said_once(thrown):
            await soon(requests.register(MODEL, "mine", 1))
        yield
        await use(requests)


def flush(client: redis.Redis, _mine: Session) -> None:
    client.flushall()


def expire(client: redis.Redis, mine: Session) -> None:
    assert mine.membership is not None
    make_overdue(client, mine.keys, mine.membership.member_id)


@contextlib.asynccontextmanager
async def join_after(
    end: Callable[[redis.Redis, Session], None], url: str, thrown: ThrownAt, patch: Any
) -> AsyncIterator[None]:
    async with forebay.connect(url, SETTINGS) as requests:
        await requests.register(MODEL, "mine", 1)
        await use(requests)
        throw_into(patch, Link, "_make_whole", thrown)
        mine = session_of(requests)
        mine._link.repairing._work = mine._link._make_whole
        with open_sync(parse_url(url)) as client:
            end(client, mine)
        with said_once(thrown):
            await soon(requests.register(MODEL, "mine", 1))
        yield
        await use(requests)


join_after_a_flush = partial(join_after, flush)
join_after_an_expiry = partial(join_after, expire)


@contextlib.asynccontextmanager
async def reconnect_after_a_failure(url: str, thrown: ThrownAt, patch: Any) -> AsyncIterator[None]:
    async with forebay.connect(url, SETTINGS) as requests:
        await requests.register(MODEL, "mine", 1)
        throw_into(patch, Link, "_make_whole", thrown)
        mine = session_of(requests)._link
        mine.repairing._work = mine._make_whole
        mine.failures = 1
        mine.drop("for the test")
        with said_once(thrown):
            await use(requests)
        yield
        await use(requests)


@contextlib.asynccontextmanager
async def repeat_of_a_batch(url: str, thrown: ThrownAt, patch: Any) -> AsyncIterator[None]:
    """The connection breaks while a batch is under way, which is sent again."""
    async with forebay.connect(url, SETTINGS) as requests:
        await requests.register(MODEL, "mine", 1)
        throw_into(patch, Link, "_make_whole", thrown)
        mine = session_of(requests)
        mine._link.repairing._work = mine._link._make_whole
        asked = mine.ask(Sweep())
        mine._flush()
        assert mine._batches.under_way
        mine._link.drop("for the test")
        assert (await soon(asked)).next_seconds is None
        yield
        await use(requests)


@contextlib.asynccontextmanager
async def join_after_a_replacement(url: str, thrown: ThrownAt, patch: Any) -> AsyncIterator[None]:
    """The library of joining has other code when a member that was expired joins anew."""
    forget_functions(url)
    async with forebay.connect(url, SETTINGS) as requests:
        await requests.register(MODEL, "mine", 1)
        throw_into(patch, Link, "_make_whole", thrown)
        mine = session_of(requests)
        mine._link.repairing._work = mine._link._make_whole
        with open_sync(parse_url(url)) as client:
            replace_library(client, join_call.JOIN)
            expire(client, mine)
        await soon(requests.register(MODEL, "mine", 1))
        yield
        await use(requests)
    forget_functions(url)


@contextlib.asynccontextmanager
async def wake_ups(url: str, thrown: ThrownAt, patch: Any) -> AsyncIterator[None]:
    async with (
        forebay.connect(url, SETTINGS) as requests,
        forebay.connect(url, SETTINGS) as rival,
    ):
        await requests.register(MODEL, "mine", 1)
        await rival.register(MODEL, "rival", 1)
        held = await rival.acquire(item())
        waiting = asyncio.ensure_future(requests.acquire(item()))
        await wait_until(
            lambda: any(a.is_waiting for a in requests._shards[MODEL]._attempts.values())
        )
        subscriber: Any = requests._server.node.subscriber
        throw_into(patch, Subscriber, "_reconnect", thrown)
        subscriber._reconnecting._work = subscriber._reconnect
        subscriber._failures = 1
        with capture_logs() as logs:
            subscriber.drop("the test says so")
            await wait_until(lambda: not subscriber._state.is_lost)
        assert "coordinator_available" in {entry["event"] for entry in logs}
        await rival.release(held, forebay.SUCCESS)
        lease = await soon(waiting)  # woken: the recheck is a minute away
        await requests.release(lease, forebay.SUCCESS)
        yield


SITUATIONS = [
    first_join,
    join_after_a_flush,
    join_after_an_expiry,
    reconnect_after_a_failure,
    repeat_of_a_batch,
    join_after_a_replacement,
    wake_ups,
]
NAMES = [
    "first_join",
    "join_after_a_flush",
    "join_after_an_expiry",
    "reconnect_after_a_failure",
    "repeat_of_a_batch",
    "join_after_a_replacement",
    "wake_ups",
]


async def thrown_everywhere(
    situation: Any, error: Callable[[], BaseException], url: str
) -> tuple[set[Place], int]:
    """Return the lines at which an error was thrown, and how often the log told of one."""
    times_said = 0

    @contextlib.asynccontextmanager
    async def with_own_patch(thrown: ThrownAt) -> AsyncIterator[None]:
        nonlocal times_said
        with open_sync(parse_url(url)) as client:
            client.flushall()
        with pytest.MonkeyPatch.context() as patch:
            async with situation(url, thrown, patch):
                yield
        times_said += thrown.times_said

    return await each_wait(with_own_patch, error), times_said


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("situation", SITUATIONS, ids=NAMES)
async def test_no_exception_at_any_await_ends_a_repair(
    redis_url: str, situation: Any, error: Callable[[], BaseException]
) -> None:
    reached, times_said = await thrown_everywhere(situation, error, redis_url)
    assert reached
    seldom_said = {join_after_a_flush, repeat_of_a_batch, join_after_a_replacement, wake_ups}
    assert times_said > 1 or situation in seldom_said


async def test_every_await_of_joining_and_repairing_was_tried(redis_url: str) -> None:
    reached: set[Place] = set()
    for situation in SITUATIONS:
        reached |= (await thrown_everywhere(situation, ValueError, redis_url))[0]
    others = ENDS_ITSELF | WAITS_ON_A_CLUSTER_ALONE
    awaits = awaits_of([session, joining, join_call, link, wakeups, wire], but=others)
    assert [place for place, lines in awaits.items() if not lines & reached] == []


async def test_a_repair_that_is_cancelled_before_its_first_step_is_begun_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, cancelled = Background._begin, []

    def begin_cancelled(self: Background) -> None:
        begin(self)
        if not cancelled and self._task is not None:
            cancelled.append(self._task.cancel())

    monkeypatch.setattr(Background, "_begin", begin_cancelled)
    async with forebay.connect(redis_url, SETTINGS) as requests:
        await soon(requests.register(MODEL, "mine", 1))
        await use(requests)
    assert cancelled == [True]
