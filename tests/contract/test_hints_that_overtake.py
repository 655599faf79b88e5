"""Hints travel over another connection than replies: either may arrive first.

Rules: design 04; design 06.

Rechecks and heartbeats are a minute away or more, so that a lost hint is never made good.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.contracts.settings import MemberSettings, RequestAdmissionConfig
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.operation import Operation
from forebay.coordinator.shard.session import Session
from tests.contract.chat_domain import CHAT, MODEL
from tests.support import wait_until
from tests.support_tasks import Work, joined, task

NEVER = MemberSettings(recheck_seconds=60.0, ttl_seconds=3600.0)
both_orders = pytest.mark.parametrize("first", ["the hint", "the reply"])


class HeldReplies:
    """Replies of a session that reach their member when the test lets them go."""

    def __init__(self, session: Session) -> None:
        self.count = 0
        self._session = session
        self._take_reply: Callable[..., None] = session._batches.take_reply
        self._held: list[Any] = []
        self._close = session.close
        session._batches.take_reply = self._hold  # type: ignore[method-assign]
        session.close = self._let_go_and_close  # type: ignore[method-assign]

    def _hold(self, *reply: Any, **more: Any) -> None:
        self.count += 1
        self._held.append(partial(self._take_reply, *reply, **more))

    async def _let_go_and_close(self, *leave: Any) -> None:
        """After a test that failed, too: leaving waits for a reply."""
        self.let_go()
        await self._close(*leave)

    def let_go(self) -> None:
        """Deliver what is held, in order, and hold nothing any more."""
        self._session._batches.take_reply = self._take_reply  # type: ignore[method-assign]
        while self._held:
            self._held.pop(0)()


def heard_by(listener: Any) -> list[Any]:
    """Return a list of the notices that a listener is told from now on."""
    heard: list[Any] = []
    listen = listener.on_notices

    def on_notices(generation: str, notices: list[Any]) -> None:
        listen(generation, notices)
        heard.extend(notices)

    listener.on_notices = on_notices
    return heard


# -- pools


@pytest.fixture
async def other(connection: ServerConnection) -> AsyncIterator[Any]:
    async with joined(connection) as tasks:
        yield tasks


@pytest.fixture
async def worker(redis_url: str, connection: ServerConnection) -> AsyncIterator[Work]:
    async with await ServerConnection.open(redis_url, NEVER) as own, joined(own) as tasks:
        work = Work(connection, tasks, 4, takes_pushes=False)
        await work.be_idle()
        yield work
        await work.finish()


@both_orders
async def test_word_of_work_is_not_lost_to_the_reply_of_an_earlier_ask(
    worker: Work, other: Any, first: str
) -> None:
    replies, heard = HeldReplies(worker.tasks.session), heard_by(worker.tasks)
    worker.puller._on_change()  # an ask leaves, and finds nothing
    await wait_until(lambda: replies.count == 1)
    if first == "the reply":
        replies.let_go()
    await other.queue.enqueue([task("a"), task("b")])
    await wait_until(lambda: ["work"] in heard)
    replies.let_go()
    await wait_until(lambda: sorted(worker.names) == ["a", "b"])


async def test_word_of_work_in_the_very_reply_of_an_ask_is_not_lost(worker: Work) -> None:
    """As for a job that submits two others while its worker asks."""
    heard = heard_by(worker.tasks)
    worker.puller._on_change()
    await worker.tasks.queue.enqueue([task("a"), task("b")])  # one batch with the ask
    await wait_until(lambda: sorted(worker.names) == ["a", "b"])
    assert ["work"] in heard


@both_orders
async def test_instant_of_a_delayed_task_is_not_put_off_by_an_older_reply(
    worker: Work, other: Any, first: str
) -> None:
    replies, heard = HeldReplies(worker.tasks.session), heard_by(worker.tasks)
    worker.puller._on_change()
    await wait_until(lambda: replies.count == 1)
    if first == "the reply":
        replies.let_go()
    await other.queue.submit(task("later", delay_seconds=2.0))
    await wait_until(lambda: [kind for kind, *_ in heard] == ["due"])
    replies.let_go()
    await wait_until(lambda: worker.names == ["later"])


# -- requests


class Waiting:
    """A member whose one attempt waits while another member holds the only lease."""

    def __init__(
        self, own: AdaptiveRequestAdmissionController, other: AdaptiveRequestAdmissionController
    ) -> None:
        self.own, self.other = own, other
        self.shard = own._shards[MODEL]

    async def begin(self, **terms: Any) -> None:
        """Fill the cap, then ask; the reply that says "waiting" is held."""
        self.taken = await self.other.acquire(RequestAdmissionItem(resource=CHAT))
        self.replies, self.heard = HeldReplies(self.shard.session), heard_by(self.shard)
        item = RequestAdmissionItem(resource=CHAT, attempt_id="waits", **terms)
        self.asking = asyncio.ensure_future(self.own.acquire(item))
        await wait_until(lambda: self.replies.count == 1)

    async def look_again(self) -> None:
        """Take the reply, then look at the attempt once more; that reply is held instead."""
        self.replies.let_go()
        self.replies = HeldReplies(self.shard.session)
        self.shard.on_resumed()
        await wait_until(lambda: self.replies.count == 1)

    @contextlib.asynccontextmanager
    async def not_listening(self) -> AsyncIterator[None]:
        """Let nobody listen to the member for a while; then it is told that it listens again."""
        session, subscriber = self.shard.session, self.shard.session._server.node.subscriber
        assert session.membership is not None
        name = session.keys.wake_channel(session.membership.member_id)
        subscriber.unsubscribe(name)
        # The server takes a connection's commands in order: the first has been carried out.
        await subscriber.subscribe("fb:another", lambda _: None, lambda: None)
        yield
        await subscriber.subscribe(name, session._memberships._on_message, self.shard.on_resumed)
        self.shard.on_resumed()


@pytest.fixture
async def waiting(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Waiting]:
    config: RequestAdmissionConfig = getattr(request, "param", RequestAdmissionConfig())
    async with (
        await ServerConnection.open(redis_url, NEVER) as own_connection,
        await ServerConnection.open(redis_url, NEVER) as other_connection,
    ):
        own = AdaptiveRequestAdmissionController(own_connection)
        other = AdaptiveRequestAdmissionController(other_connection)
        for controller in (own, other):
            await controller.register(MODEL, "alias", max_parallel_requests=1, config=config)
        yield Waiting(own, other)
        await own.close()
        await other.close()


def asked_of(session: Session) -> list[str]:
    """Return a list of the operations that are submitted from now on, by name."""
    names: list[str] = []
    submit = session.submit

    def note(operation: Operation[Any], *told: Any) -> None:
        names.append(str(operation.encode()[0]))
        submit(operation, *told)

    session.submit = note  # type: ignore[method-assign]
    return names


@both_orders
async def test_grant_is_delivered_once_whatever_comes_first(waiting: Waiting, first: str) -> None:
    await waiting.begin()
    asked = asked_of(waiting.shard.session)
    if first == "the reply":
        waiting.replies.let_go()
    await waiting.other.release(waiting.taken, SUCCESS)
    lease = await asyncio.wait_for(waiting.asking, 5.0)
    assert isinstance(lease, RequestAdmissionLease)
    released = waiting.own.release(lease, SUCCESS)  # over before the late reply says "waiting"
    waiting.replies.let_go()
    assert (await released).released
    assert asked == ["release"]  # and nothing was taken back that the caller already had


@both_orders
async def test_denial_is_delivered_once_whatever_comes_first(waiting: Waiting, first: str) -> None:
    await waiting.begin(queue_wait_timeout_seconds=0.05)
    if first == "the reply":
        waiting.replies.let_go()
    while not waiting.asking.done():
        await waiting.other.try_acquire(RequestAdmissionItem(resource=CHAT))  # settles the shard
    with pytest.raises(RequestAdmissionError) as denied:
        await waiting.asking
    assert denied.value.denied.reason is RequestDenialReason.QUEUE_TIMEOUT
    waiting.replies.let_go()
    refused = await waiting.own.try_acquire(RequestAdmissionItem(resource=CHAT))
    assert isinstance(refused, RequestAdmissionDenied)


@both_orders
@pytest.mark.parametrize("of", ["an ask", "a look"])
async def test_end_of_a_gap_is_not_lost_to_the_reply(waiting: Waiting, of: str, first: str) -> None:
    """What was freed in the gap was not granted to a member to whom nobody listened."""
    await waiting.begin()
    if of == "a look":
        await waiting.look_again()
    if first == "the reply":
        waiting.replies.let_go()
    async with waiting.not_listening():
        await waiting.other.release(waiting.taken, SUCCESS)
    waiting.replies.let_go()
    assert isinstance(await asyncio.wait_for(waiting.asking, 5.0), RequestAdmissionLease)


@pytest.mark.parametrize("waiting", [RequestAdmissionConfig(max_hold_seconds=0.05)], indirect=True)
async def test_loss_that_overtakes_the_lease_is_told_with_it(waiting: Waiting) -> None:
    lost: list[tuple[str, str]] = []
    waiting.shard.held.on_lease_lost = lambda lease, why: lost.append((lease.lease_id, why))
    replies, heard = HeldReplies(waiting.shard.session), heard_by(waiting.shard)
    asking = asyncio.ensure_future(
        waiting.own.acquire(RequestAdmissionItem(resource=CHAT, attempt_id="held"))
    )
    await wait_until(lambda: replies.count == 1)
    while not heard:
        await waiting.other.try_acquire(RequestAdmissionItem(resource=CHAT))
    assert heard == [["lost", "held", "max_hold"]]
    replies.let_go()
    assert (await asking).lease_id == "held"
    assert lost == [("held", "max_hold")]
