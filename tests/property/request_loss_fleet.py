"""Members of a request shard, its operator, and a server that loses what it was told."""

from __future__ import annotations

import json
from collections.abc import Iterator

from redis.exceptions import ResponseError

from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS
from forebay.coordinator.server.membership import member_keys
from tests.property.request_loss_model import Asked
from tests.property.request_loss_sessions import (
    TTL_US,
    WEIGHTS,
    WINDOW,
    LossSessions,
    Player,
    limit_below_cap,
)
from tests.support_records import read_window
from tests.support_scripts import Refused
from tests.support_state import events


class LossFleet(LossSessions):
    """The members, the operator, and what the server does to them."""

    # -- moves

    def acquire(self, player: Player, group: str, *, loses_reply: bool = False) -> None:
        attempt_id = self.next_id("a")
        asked = Asked(at_us=self.shard.server_us, group=group)
        self.memory_of(player).waits[attempt_id] = asked
        operation = ("acquire", attempt_id, "chat", group, WEIGHTS[group], "0", "")
        self.send(player, operation, loses_reply=loses_reply)

    def sweep_all(self) -> None:
        """Let each member sweep, and ask what became of its waiters."""
        for player in list(self.players.values()):
            self.send(player, ("sweep",))
            self.send(player, *[("state", i) for i in self.memory_of(player).waits])

    def try_each_group(self) -> None:
        """Let somebody ask in each group, so that a group which cannot be read is met."""
        for group, weight in WEIGHTS.items():
            player = next(iter(self.players.values()))
            attempt_id = self.next_id("t")
            self.send(player, ("acquire", attempt_id, "chat", group, weight, "0", "try"))
            self.send(player, ("cancel", attempt_id))

    def release(
        self, player: Player, lease_id: str, outcome: str = "success", *, loses_reply: bool = False
    ) -> None:
        self.memory_of(player).releasing.add(lease_id)
        generation = player.generation
        operation = ("release", lease_id, outcome, "0", generation, "", "")
        self.send(player, operation, loses_reply=loses_reply)

    def cancel(self, player: Player, attempt_id: str, *, loses_reply: bool = False) -> None:
        del self.memory_of(player).waits[attempt_id]
        self.send(player, ("cancel", attempt_id), loses_reply=loses_reply)

    def leave(self, player: Player) -> None:
        if not player.is_confirmed:
            player.owes_statement = False
            self.come_back(player)  # each connection begins with it
        self.model.ended(player.name)
        del self.players[player.name]
        player.number += 1
        if self._run(player, [("leave",)]) is None:
            self.has_dead = True  # the shard has lost its generation, and its TTL ends the member
        self.server.stop_listening(player.name)

    def die(self, player: Player) -> None:
        self.has_dead = True
        self.model.ended(player.name)
        del self.players[player.name]
        self.server.stop_listening(player.name)

    def override(self, cap: int) -> None:
        try:
            self.shard.administer("override_cap", str(cap))
        except Refused as refused:
            if refused.code not in ("DAMAGED", "NOSHARD"):
                raise
        else:
            self.model.override(cap)
        self._take_pushed()
        told, self._told_set = self._told_set, []
        for name in told:
            self.send(self.players[name], ("sweep",))

    # -- losses

    def _window_limit(self) -> int | None:
        """The window's limit as it is stored now."""
        try:
            return limit_below_cap(read_window(self.shard.client, self.shard.keys))
        except ResponseError:
            return None  # another application has written over it

    def lose(self, how: str, *kinds: str) -> None:
        """Lose a key, or all of them."""
        self.model.is_whole, self.model.has_lost_since_save = False, True
        if how == "flush":
            self.model.unknown |= self.players.keys() - self.server.listeners
        getattr(self.server, how)(*kinds)
        if how == "flush" or "meta" in kinds:
            self.model.lost_settings(-1, None)

    def garble(self, kind: str, pick: int, garbage: str) -> None:
        self.model.is_whole, self.model.has_lost_since_save = False, True
        limit = self.model.limit
        entry = self.server.garble(kind, pick, garbage)
        if kind == "meta" and entry == "settings":
            self.model.lost_settings(-1, limit)
        elif kind == "meta" and entry == WINDOW:
            self.model.lost_settings(self.model.settings, None)

    def restart_empty(self) -> None:
        """Start the server anew with nothing."""
        self.restart()
        self.server.flush()
        self.model.has_lost_since_save = True
        self.model.lost_settings(-1, None)
        self.model.unknown.clear()  # as nothing is left of another server, anybody may come

    def restart(self) -> None:
        """Start the server anew with its data; all connections break."""
        self.model.is_whole = False
        self.server.restart()
        for player in self.players.values():
            player.is_confirmed = False

    def save(self) -> None:
        self.server.save()
        self.model.has_lost_since_save = False
        self._kept_members = set(self.players)
        self._kept = (self.model.settings, self._window_limit())

    def restore(self) -> None:
        self.restart()
        self.server.restore()
        self.has_dead = True  # those that have left since
        self.model.unknown |= self.players.keys() - self._kept_members
        self.model.restored(*self._kept)

    def events(self) -> list[dict[str, str]]:
        return [fields for _, fields in events(self.shard.client, self.shard.keys)]

    # -- time

    def advance_a_little(self) -> None:
        """Let a millisecond pass, so that no two attempts are equally old."""
        self.shard.advance(0.001)

    def advance(self, seconds: float) -> None:
        """Let time pass, within which every member beats."""
        self.shard.advance(seconds)
        for player in list(self.players.values()):
            args = (player.name, TTL_US, KEEP_UNUSED_SHARD_MS)
            keys = member_keys(self.shard.keys)
            if json.loads(self.shard.run("member/heartbeat", keys, args))[1] == 0:
                player.is_confirmed = False
            if not player.is_confirmed:
                self.send(player)

    def all_leases(self) -> Iterator[tuple[Player, str]]:
        for player in self.players.values():
            for lease_id in self.memory_of(player).calls:
                yield player, lease_id
