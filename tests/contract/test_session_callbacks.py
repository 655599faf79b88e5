"""A callback that raises, or a reply that cannot be read, costs its own operation alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

import forebay
from forebay.contracts.errors import ConfigurationError, CoordinatorError, CoordinatorUnavailable
from forebay.coordinator.requests import operations
from forebay.coordinator.requests.shard import RequestShard
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.backlog import OPERATIONS_PER_CALL
from forebay.coordinator.shard.operation import Args, EndOfLease, Operation, Reply
from forebay.coordinator.shard.session import Session
from tests.contract.chat_domain import MODEL, is_idle, item, when
from tests.support import wait_until
from tests.support_records import make_overdue
from tests.support_scene import Controller, settings, soon
from tests.support_scripts import AIMD

CAP = 200


@dataclass(frozen=True)
class Look(Operation[list[Any]]):
    """Asks for an attempt that the shard does not know; told the words of its answer."""

    argument: Any = "nobody"

    needs_memory: ClassVar[bool] = False

    def encode(self) -> Args:
        return ("state", self.argument)

    def decode(self, reply: Reply) -> list[Any]:
        return list(reply.terms)


SECRET = "a secret"  # no line of a traceback quotes it, only the message does


def waiting_on(shard: RequestShard) -> int:
    return sum(attempt.is_waiting for attempt in shard._attempts.values())


class Lost(list[str]):
    """The ids of leases that were told lost; the first one's callback raises."""

    def __call__(self, lease: forebay.RequestAdmissionLease, _why: str) -> None:
        self.append(lease.lease_id)
        if len(self) == 1:
            raise RuntimeError(SECRET)


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[ServerConnection]:
    async with await ServerConnection.open(redis_url, settings()) as connection:
        yield connection


@pytest.fixture
async def requests(connection: ServerConnection) -> AsyncIterator[Controller]:
    controller = Controller(connection, on_lease_lost=Lost())
    await controller.register(MODEL, "main", CAP, AIMD)
    yield controller
    await controller.close()


@pytest.fixture
def session(requests: Controller) -> Session:
    return requests._shards[MODEL].session


class Broken(Operation[list[Any]]):
    """A look of which one step raises, the first time or always.

    Attributes:
        heard: what its caller was told.
        undone: what its reply gave to a caller that had gone.
    """

    needs_memory: ClassVar[bool] = False

    def __init__(self, step: str, *, always: bool = False) -> None:
        self.heard: list[Any] = []
        self.undone: list[Any] = []
        self._step = step
        self._always = always

    def _raise(self, step: str) -> None:
        if step == self._step:
            self._step = step if self._always else ""
            raise ValueError(SECRET)

    def make(self) -> Broken:
        self._raise("make")
        return self

    def encode(self) -> Args:
        self._raise("encode")
        return Look().encode()

    def decode(self, reply: Reply) -> list[Any]:
        self._raise("decode")
        return list(reply.terms)

    def told(self, outcome: Any) -> bool:
        self._raise("told")
        self.heard.append(outcome)
        return True

    def undo(self, reply: Reply) -> tuple[()]:
        self.undone.append(list(reply.terms))
        self._raise("undo")
        return ()

    def submit(self, session: Session) -> None:
        session.submit(self.make, self.told)


@pytest.mark.parametrize("step", ["make", "decode", "told"])
@pytest.mark.parametrize("place", [0, 20, OPERATIONS_PER_CALL - 1, OPERATIONS_PER_CALL])
async def test_an_operation_that_raises_leaves_no_other_of_its_batch_without_a_result(
    session: Session, step: str, place: int
) -> None:
    broken, asked = Broken(step), []
    with capture_logs() as logs:
        for number in range(2 * OPERATIONS_PER_CALL):
            if number == place:
                broken.submit(session)
            asked.append(session.ask(Look()))
        answers = await soon(asyncio.gather(*asked))
    assert answers == [["unknown"]] * len(asked)
    assert [type(told) for told in broken.heard] == [CoordinatorError]
    assert broken.undone == ([] if step == "make" else [["unknown"]])
    faults = [entry for entry in logs if entry["event"] == "unexpected_exception"]
    assert [(fault["error_type"], fault["log_level"]) for fault in faults] == [
        ("ValueError", "error")
    ]
    assert "Traceback" in faults[0]["stack"]
    assert SECRET not in str(faults)
    assert await soon(session.ask(Look())) == ["unknown"]


async def test_an_operation_that_always_raises_is_logged_once_and_stops_nothing(
    session: Session,
) -> None:
    with capture_logs() as logs:
        for _ in range(100):
            Broken("decode", always=True).submit(session)
        assert await soon(session.ask(Look())) == ["unknown"]
    assert len([entry for entry in logs if entry["event"] == "unexpected_exception"]) == 1


async def test_an_undo_that_raises_stops_nothing(session: Session) -> None:
    broken = Broken("undo")
    broken.submit(session)
    session._flush()
    session._batches.under_way[0].is_given_up = True
    assert await soon(session.ask(Look())) == ["unknown"]
    assert broken.undone == [["unknown"], ["unknown"]]
    assert [type(told) for told in broken.heard] == []


async def test_a_caller_who_is_given_up_and_raises_leaves_no_other_without_its_error(
    session: Session,
) -> None:
    Broken("told").submit(session)
    asked = session.ask(Look())
    session._batches.give_up(CoordinatorUnavailable("away"))
    with pytest.raises(CoordinatorUnavailable):
        await soon(asked)
    assert await soon(session.ask(Look())) == ["unknown"]


async def test_what_a_reply_gives_to_a_caller_that_has_gone_is_undone(session: Session) -> None:
    broken = Broken("none")
    session.submit(broken, lambda _outcome: False)
    assert await soon(session.ask(Look())) == ["unknown"]
    assert broken.undone == [["unknown"]]


@pytest.mark.parametrize("method", ["on_notices", "on_next_wake"])
async def test_a_listener_that_raises_costs_no_result(
    requests: Controller, session: Session, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError(SECRET)

    take_reply = session._batches.take_reply

    def take_with_a_notice(reply: bytes, *rest: Any, **more: Any) -> None:
        *before, _notices, sequence = json.loads(reply)
        notices = [["lost", "nobody's", "expired"]]
        take_reply(json.dumps([*before, notices, sequence]).encode(), *rest, **more)

    monkeypatch.setattr(requests._shards[MODEL], method, broken)
    monkeypatch.setattr(session._batches, "take_reply", take_with_a_notice)
    answers = await soon(asyncio.gather(*(session.ask(Look()) for _ in range(3))))
    assert answers == [["unknown"]] * 3


def end_membership(redis_url: str, requests: Controller) -> None:
    """Let the shard end the one membership that there is, as overdue."""
    membership = requests._shards[MODEL].session.membership
    assert membership is not None
    with open_sync(parse_url(redis_url)) as client:
        make_overdue(client, membership.keys, membership.member_id)


async def test_a_lost_lease_is_told_to_each_holder_though_one_raises(
    requests: Controller, redis_url: str
) -> None:
    leases = [await requests.acquire(item()) for _ in range(3)]
    with capture_logs() as logs:
        end_membership(redis_url, requests)
        await soon(requests.register(MODEL, "main", CAP, AIMD))
    assert requests._shards._on_lease_lost == [lease.lease_id for lease in leases]
    raised = [entry for entry in logs if entry["event"] == "on_lease_lost_raised"]
    assert [entry["error_type"] for entry in raised] == ["RuntimeError"]
    assert SECRET not in str(raised)
    assert (await requests.release(await requests.acquire(item()), forebay.SUCCESS)).released


@pytest.mark.parametrize("method", ["on_lost", "on_joined"])
async def test_a_listener_that_raises_while_joining_anew_keeps_nobody_out(
    requests: Controller,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    shard = requests._shards[MODEL]
    calls: list[Any] = []
    original = getattr(shard, method)

    def raises_once(membership: Any) -> Any:
        calls.append(membership)
        if len(calls) == 1:
            raise ValueError(SECRET)
        return original(membership)

    monkeypatch.setattr(shard, method, raises_once)
    end_membership(redis_url, requests)
    await soon(requests.register(MODEL, "main", CAP, AIMD))
    lease = await soon(requests.acquire(item()))
    assert (await requests.release(lease, forebay.SUCCESS)).released
    assert calls


async def test_an_operation_of_a_join_that_raises_leaves_no_waiting_one_without_a_result(
    requests: Controller,
    session: Session,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shard, broken = requests._shards[MODEL], Broken("encode")
    join = shard.on_joined

    def on_joined(membership: Any) -> Any:
        return [(broken, broken.told), *join(membership)]

    monkeypatch.setattr(shard, "on_joined", on_joined)
    end_membership(redis_url, requests)
    assert await soon(session.ask(Look())) == ["unknown"]
    assert broken.heard == [["unknown"]]


async def test_a_loss_under_an_earlier_membership_is_not_told_of_a_later_lease(
    requests: Controller, session: Session, redis_url: str
) -> None:
    await requests.register(MODEL, "main", 1)
    await requests.acquire(item())
    waiting = asyncio.ensure_future(requests.acquire(item()))
    shard = requests._shards[MODEL]
    await wait_until(lambda: waiting_on(shard) == 1)
    attempt = next(iter(shard._attempts.values()))
    end_membership(redis_url, requests)
    before = session.membership
    assert before is not None
    granted = ["granted", attempt.encoded_id, 1, 1, 0, 1]
    shard.on_notices(before.generation, [granted, ["lost", attempt.encoded_id, "max_hold"]])
    session._memberships.expire(before)
    session._memberships.lose()
    lease = await soon(waiting)
    assert lease.member_id != before.member_id
    assert lease.lease_id not in requests._shards._on_lease_lost
    assert (await requests.release(lease, forebay.SUCCESS)).released


async def test_an_attempt_that_the_server_still_has_under_an_earlier_membership_is_asked_again(
    requests: Controller, session: Session
) -> None:
    """As where the reply to a heartbeat was lost: the TTL is over here before it is there."""
    await requests.register(MODEL, "main", 1)
    await requests.acquire(item())
    waiting = asyncio.ensure_future(requests.acquire(item()))
    shard, before = requests._shards[MODEL], session.membership
    await wait_until(lambda: waiting_on(shard) == 1)
    assert before is not None
    session._memberships.expire(before)
    lease = await soon(waiting)
    assert lease.member_id != before.member_id
    assert (await requests.release(lease, forebay.SUCCESS)).released


# -- what cannot be read, and what cannot be written


@pytest.mark.parametrize(
    "garble",
    [
        lambda _reply: b"no JSON",
        lambda _reply: b"\xff\xfe",
        lambda reply: json.dumps([*json.loads(reply)[:3], [], [], 0]).encode(),
        lambda reply: json.dumps(["soon", *json.loads(reply)[1:]]).encode(),
    ],
    ids=["no JSON", "no text", "results missing", "no time"],
)
async def test_callers_of_a_reply_that_cannot_be_read_get_a_typed_error(
    requests: Controller, session: Session, monkeypatch: pytest.MonkeyPatch, garble: Any
) -> None:
    take_reply, garbled = session._batches.take_reply, []
    before = session.membership

    def take_garbled(reply: bytes, *rest: Any, **more: Any) -> None:
        if not garbled:
            garbled.append(reply)
            reply = garble(reply)
        take_reply(reply, *rest, **more)

    monkeypatch.setattr(session._batches, "take_reply", take_garbled)
    with capture_logs() as logs:
        asked = [asyncio.ensure_future(requests.acquire(item())) for _ in range(3)]
        ended = await soon(asyncio.gather(*asked, return_exceptions=True))
        assert {type(error) for error in ended} == {CoordinatorError}
        assert SECRET not in str(ended)
        lease = await soon(requests.acquire(item()))
    assert session.membership is not before, "what the reply gave ends with its membership"
    assert (await requests.release(lease, forebay.SUCCESS)).released
    assert [e["during"] for e in logs if e["event"] == "unexpected_exception"] == [
        "reading a reply"
    ]


async def test_replies_that_can_never_be_read_are_no_hot_loop(
    requests: Controller, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(
        "forebay.coordinator.server.link.pause_seconds",
        lambda failures, _doublings: pauses.append(failures) or 0.0,
    )
    monkeypatch.setattr(session._batches, "take_reply", lambda *_, **__: json.loads("garbled"))
    for _ in range(3):
        with pytest.raises(CoordinatorError):
            await soon(requests.acquire(item()))
    await wait_until(lambda: pauses[:3] == [1, 2, 3])


@pytest.mark.parametrize("argument", [None, [1], "\ud800"], ids=repr)
async def test_what_has_no_form_in_bytes_fails_alone(session: Session, argument: Any) -> None:
    before, unsendable, after = (session.ask(Look(name)) for name in ("a", argument, "b"))
    assert await soon(before) == ["unknown"]
    assert await soon(after) == ["unknown"]
    with pytest.raises(CoordinatorError):
        await soon(unsendable)
    assert await soon(session.ask(Look())) == ["unknown"]


# -- one attempt, one notice


async def test_a_grant_that_cannot_be_read_fails_its_attempt_and_goes_back(
    requests: Controller,
    connection: ServerConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decode, broken = operations.decode_lease, []

    def decode_but_the_first(asked: Any, *rest: Any) -> Any:
        if not broken:
            broken.append(asked)
            raise KeyError(SECRET)
        return decode(asked, *rest)

    monkeypatch.setattr(operations, "decode_lease", decode_but_the_first)
    asked = [asyncio.ensure_future(requests.acquire(item())) for _ in range(3)]
    ended = await soon(asyncio.gather(*asked, return_exceptions=True))
    assert [type(end).__name__ for end in ended] == ["CoordinatorError"] + [
        "RequestAdmissionLease"
    ] * 2
    for lease in ended[1:]:
        assert (await requests.release(lease, forebay.SUCCESS)).released
    await when(connection, is_idle)


async def test_a_notice_that_cannot_be_read_fails_its_attempt_and_no_other(
    requests: Controller,
    connection: ServerConnection,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await requests.register(MODEL, "main", 1)
    held = await requests.acquire(item())
    waiting = [asyncio.ensure_future(requests.acquire(item())) for _ in range(2)]
    shard = requests._shards[MODEL]
    await wait_until(lambda: waiting_on(shard) == 2)
    decode, broken = operations.decode_lease, []

    def decode_but_the_first(asked: Any, *rest: Any) -> Any:
        if not broken:
            broken.append(asked)
            raise KeyError(SECRET)
        return decode(asked, *rest)

    monkeypatch.setattr(operations, "decode_lease", decode_but_the_first)
    await requests.release(held, forebay.SUCCESS)
    ended = await soon(asyncio.gather(*waiting, return_exceptions=True))
    errors = [end for end in ended if isinstance(end, CoordinatorError)]
    leases = [end for end in ended if isinstance(end, forebay.RequestAdmissionLease)]
    assert (len(errors), len(leases)) == (1, 1)
    assert (await requests.release(leases[0], forebay.SUCCESS)).released
    await when(connection, is_idle)


class LookedFor(EndOfLease):
    """A release that is answered by a word which is no reason of a release."""

    def encode(self) -> Args:
        return Look().encode()


async def test_a_release_whose_answer_is_unknown_is_told_deferred(session: Session) -> None:
    result = await soon(session.ask(LookedFor()))
    assert result.reason is forebay.ReleaseReason.DEFERRED


async def test_a_refused_look_ends_the_attempt_that_waits(requests: Controller) -> None:
    await requests.register(MODEL, "main", 1)
    held = await requests.acquire(item())
    waiting = asyncio.ensure_future(requests.acquire(item()))
    shard = requests._shards[MODEL]
    await wait_until(lambda: waiting_on(shard) == 1)
    attempt = next(iter(shard._attempts.values()))
    shard._rechecks.recheck(attempt)
    (look,) = shard.session._batches.waiting.submitted
    shard.session._batches.waiting.submitted.clear()
    look.on_outcome(ConfigurationError("forbidden"))
    with pytest.raises(ConfigurationError):
        await soon(waiting)
    assert (await requests.release(held, forebay.SUCCESS)).released
