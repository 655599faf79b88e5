"""Random histories of a request shard that loses state, and of what its members remember.

Between the members' calls keys are lost, garbled, flushed, or restored from an older state. The
model says after each answer whether it may be given; in the end the books agree and all drains.
"""

from __future__ import annotations

import fakeredis
import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from forebay.coordinator.keys import REQUEST_KEYS
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.property.losses import GARBAGE
from tests.property.modes import LONG, explore
from tests.property.request_loss_checks import drain, settle
from tests.property.request_loss_fleet import LossFleet
from tests.property.request_loss_sessions import WEIGHTS, Player

MOST_MEMBERS = 4
PICKS = st.integers(0, 11)
KINDS = st.sampled_from(REQUEST_KEYS)
LOSES_REPLY = st.sampled_from([False, False, False, True])
WEIGHTED = [
    *["acquire"] * 14,
    *["release"] * 8,
    *["sweep", "time_passes"] * 3,
    *["cancel", "be_refused", "override", "save", "settle"] * 2,
    *["join", "leave", "die"],
    *["delete", "mistype", "garble"] * 2,
    *["flush", "restart", "restart_empty", "restore"],
]


class LossyRequestShard(RuleBasedStateMachine):
    """Members of a shard, an operator, and a server that loses what it was told."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        self.fleet = LossFleet(client)

    @initialize()
    def begin(self) -> None:
        for _ in range(2):
            self.fleet.join()
        self.save(None)

    # One rule draws every move: separate rules are switched off at random for whole examples.
    @rule(name=st.sampled_from(WEIGHTED), data=st.data())
    def move(self, name: str, data: st.DataObject) -> None:
        self.fleet.advance_a_little()
        getattr(self, name)(data)

    def player(self, data: st.DataObject) -> Player:
        players = list(self.fleet.players.values())
        return players[data.draw(PICKS, "member") % len(players)]

    def lose_in_between(self, data: st.DataObject) -> bool:
        """Whether the next reply is lost; the server may lose state with it."""
        is_lost = data.draw(LOSES_REPLY, "loses its reply")
        name = data.draw(st.sampled_from(["", *LOSSES]), "and then") if is_lost else ""
        self.fleet.lose_in_between = (lambda: getattr(self, name)(data)) if name else None
        return is_lost

    # -- members

    def join(self, data: st.DataObject) -> None:
        if len(self.fleet.players) < MOST_MEMBERS and self.fleet.server.listeners:
            self.fleet.join()

    def leave(self, data: st.DataObject) -> None:
        if len(self.fleet.players) > 1:
            self.fleet.leave(self.player(data))

    def die(self, data: st.DataObject) -> None:
        if len(self.fleet.players) > 1:
            self.fleet.die(self.player(data))

    def acquire(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(list(WEIGHTS)), "group")
        self.fleet.acquire(self.player(data), group, loses_reply=self.lose_in_between(data))

    def release(self, data: st.DataObject, outcome: str = "success") -> None:
        if held := sorted(self.fleet.all_leases(), key=lambda held: held[1]):
            player, lease_id = held[data.draw(PICKS, "lease") % len(held)]
            self.fleet.release(player, lease_id, outcome, loses_reply=self.lose_in_between(data))

    def be_refused(self, data: st.DataObject) -> None:
        self.release(data, "rate_limited")

    def cancel(self, data: st.DataObject) -> None:
        player = self.player(data)
        if waits := list(self.fleet.memory_of(player).waits):
            attempt_id = waits[data.draw(PICKS, "waiter") % len(waits)]
            self.fleet.cancel(player, attempt_id, loses_reply=self.lose_in_between(data))

    def sweep(self, data: st.DataObject) -> None:
        self.fleet.send(self.player(data), ("sweep",))

    def override(self, data: st.DataObject) -> None:
        self.fleet.override(data.draw(st.sampled_from([0, 2, 3, 9]), "cap"))

    def time_passes(self, data: st.DataObject) -> None:
        self.fleet.advance(data.draw(st.sampled_from([0.2, 1.0, 3.0]), "seconds"))

    def settle(self, data: st.DataObject) -> None:
        settle(self.fleet)

    # -- losses

    def delete(self, data: st.DataObject) -> None:
        self.fleet.lose("delete", data.draw(KINDS, "key"))

    def mistype(self, data: st.DataObject) -> None:
        self.fleet.lose("mistype", data.draw(KINDS, "key"))

    def garble(self, data: st.DataObject) -> None:
        kind, garbage = data.draw(KINDS, "key"), data.draw(st.sampled_from(GARBAGE), "garbage")
        self.fleet.garble(kind, data.draw(PICKS, "entry"), garbage)

    def flush(self, data: st.DataObject) -> None:
        self.fleet.lose("flush")

    def restart(self, data: st.DataObject) -> None:
        self.fleet.restart()

    def restart_empty(self, data: st.DataObject) -> None:
        self.fleet.restart_empty()

    def save(self, data: st.DataObject | None) -> None:
        self.fleet.save()

    def restore(self, data: st.DataObject) -> None:
        self.fleet.restore()

    def teardown(self) -> None:
        if self.fleet.players:
            self.fleet.lose_in_between = None
            drain(self.fleet)
        self.fleet.shard.close()


LOSSES = ("delete", "mistype", "garble", "flush", "restart", "restart_empty", "restore")


def test_a_shard_that_loses_state_keeps_its_promises_on_a_real_server(redis_url: str) -> None:
    with open_sync(parse_url(redis_url)) as client:
        explore("real server", LossyRequestShard, client, 10_000 if LONG else 8)


def test_a_shard_that_loses_state_keeps_its_promises_on_fakeredis() -> None:
    with fakeredis.FakeRedis(version=(7,)) as client:
        explore("fakeredis", LossyRequestShard, client, 1_000 if LONG else 2)
