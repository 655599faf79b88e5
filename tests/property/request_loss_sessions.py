"""Sessions with a request shard that loses state: each remembers, and states what it holds.

They are played call by call, as a session does it, and tell the model what they are answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS, SCHEMA_VERSION
from forebay.coordinator.scripts.records import parsed
from forebay.coordinator.server.membership import member_keys
from tests.property.losses import LossyServer
from tests.property.request_loss_model import Asked, Lease, LossModel, Memory
from tests.support_scripts import AIMD, PROCESS, Notices, Refused, Register, ScriptedShard, encode

CAP: Final = 4
TTL_US: Final = 15_000_000
CONFIG: Final = AIMD.model_copy(update={"max_hold_seconds": 3600.0})
WEIGHTS: Final = {"g": "1.0", "h": "2.0"}
MOST_ATTEMPTS: Final = 10
WINDOW: Final = "window_chat"

Operation = tuple[Any, ...]


@dataclass(slots=True)
class Player:
    """One member's session with the shard.

    Attributes:
        number: of its last batch.
        under_way: the operations of the batch that was not answered yet.
        is_refused: whether the shard refused that batch.
        owes_statement: whether it has to state what it holds.
        is_confirmed: whether the shard knows the member, as far as it can tell.
        memory: of the shard, as its last sweep said.
    """

    name: str
    generation: str
    run_id: str
    number: int = 0
    under_way: list[Operation] = field(default_factory=list)
    is_refused: bool = False
    owes_statement: bool = False
    is_confirmed: bool = True
    memory: str = ""


class LossSessions:
    """The sessions of all members, and what the model is told of them.

    Attributes:
        lose_in_between: called after a batch whose reply is lost, once.
    """

    def __init__(self, client: redis.Redis) -> None:
        client.flushall()
        self.shard = ScriptedShard(client)
        self.server = LossyServer(client, self.shard.keys)
        self.model = LossModel(CAP)
        self.players: dict[str, Player] = {}
        self.lose_in_between: Callable[[], None] | None = None
        self.has_dead = False
        self._ids = 0
        self._granted: list[Asked] = []
        self._told_set: list[str] = []
        self._kept_members: set[str] = set()
        self._kept: tuple[int, int | None] = (-1, None)

    def next_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._ids}"

    def memory_of(self, player: Player) -> Memory:
        return self.model.members[player.name]

    # -- members

    def join(self) -> Player:
        """A newcomer listens, joins, and registers."""
        name = self.next_id("m")
        self.server.listen(name)
        _, generation, *_, run_id, _ = self._join(name, "", "")
        self.model.joined(name, generation, self.shard.server_us)
        player = self.players[name] = Player(name, generation, run_id)
        self._take_pushed()
        self.send(player, self._registration())
        return player

    def _join(self, name: str, known: str, known_id: str) -> list[Any]:
        new = self.next_id("gen")
        known_by = (new, known, known_id)
        args = (name, TTL_US, SCHEMA_VERSION, *known_by, KEEP_UNUSED_SHARD_MS, PROCESS)
        reply = json.loads(self.shard.run("member/join", member_keys(self.shard.keys), args))
        self.shard.generation = reply[1]
        return list(reply)

    def _registration(self) -> Operation:
        return tuple(encode(Register("alias", CAP, CONFIG)))

    def come_back(self, player: Player) -> None:
        """Ask the shard again whether it knows this member, and state all where it lost state."""
        self.advance_a_little()
        self.server.listen(player.name)
        now_us, generation, _, word, _, run_id, remembered = self._join(
            player.name, player.generation, player.run_id
        )
        assert word in ("member", "forgotten"), f"{player.name} is {word}, though it is alive"
        self.model.saw(generation, now_us)
        self._take_pushed()
        is_forgotten = word == "forgotten"
        player.owes_statement |= is_forgotten
        player.is_confirmed, player.generation = True, generation
        player.run_id = run_id or player.run_id
        if (
            player.under_way
            and not player.is_refused
            and (not is_forgotten or remembered >= player.number)
        ):
            self._send_again(player)  # it is remembered, and answered as before
        elif player.under_way:
            player.is_refused = True

    def _state(self, player: Player) -> None:
        memory, now_us = self.memory_of(player), self.shard.server_us
        first = [("recall", player.memory)] if player.memory else []
        first.append(self._registration())
        held = dict(memory.leases)
        waits = dict(memory.waits)
        holds = [
            ("hold", i, "chat", "g", lease.at_us, lease.limit, lease.cuts, lease.effective_max, 0)
            for i, lease in held.items()
        ]
        asked = [
            ("wait", i, "chat", one.group, WEIGHTS[one.group], 0, "", now_us - one.at_us)
            for i, one in waits.items()
        ]
        player.number += 1
        player.owes_statement = False
        self.model.stated(player.name)  # its own statement may open the shard
        results = self._call(player, [*first, *holds, *asked, ("inventory", "")])
        if results is None:
            memory.stated_in, player.owes_statement = "", True
            return
        results = results[len(first) :]
        for lease_id, result in zip(held, results, strict=False):
            is_held = result == ["held"] or lease_id in self.model.sent_again
            assert is_held, f"{lease_id} of {player.name}: {result}"
        for attempt_id, result in zip(waits, results[len(held) :], strict=False):
            self._answer(player, attempt_id, result)
        for listed in results[-1][1]:
            if listed not in memory.leases and listed not in memory.waits:
                player.number += 1
                self._call(player, [("cancel", listed)])

    # -- calls

    def send(self, player: Player, *operations: Operation, loses_reply: bool = False) -> None:
        """Send a batch until it is answered, as a session does."""
        player.number, player.under_way = player.number + 1, list(operations)
        if player.is_confirmed and loses_reply:
            self._lose_reply(player)
        for _ in range(MOST_ATTEMPTS):
            if not player.is_confirmed:
                self.come_back(player)
            if player.owes_statement and player.is_confirmed:
                self._state(player)
            if player.is_confirmed and not player.under_way:
                return
            if player.is_confirmed:
                player.number, player.is_refused = player.number + player.is_refused, False
                self._send_again(player)
        raise AssertionError(f"{operations} of {player.name} was refused again and again")

    def _send_again(self, player: Player) -> None:
        operations = player.under_way
        results = self._call(player, operations)
        if results is not None:
            player.under_way = []
            for operation, result in zip(operations, results, strict=True):
                self._take_result(player, operation, result)
            self._note_order()

    def _lose_reply(self, player: Player) -> None:
        self._note_sent_again(player.under_way)
        if self._run(player, player.under_way) is not None:
            player.is_confirmed = False  # its connection broke
        self.advance_a_little()
        if self.lose_in_between is not None:
            self.lose_in_between()

    def _note_sent_again(self, operations: list[Operation]) -> None:
        self.model.sent_again.update(one[1] for one in operations if one[0] == "release")

    def _call(self, player: Player, operations: list[Operation]) -> list[Any] | None:
        """Return the results of a batch; None where the shard does not know the member."""
        reply = self._run(player, operations)
        if reply is None:
            return None
        _, _, generation, results, notices, _ = reply
        self._take_notices(player.name, notices)
        if generation != player.generation:
            player.is_confirmed = False
        return list(results)

    def _run(self, player: Player, operations: list[Operation]) -> list[Any] | None:
        parts = (part for operation in operations for part in operation)
        args = [player.name, player.number, *parts]
        try:
            reply = json.loads(self.shard.run("requests/batch", self.shard.keys.all, args))
        except Refused as refused:
            if refused.code != "NOMEMBER":
                raise AssertionError(f"{operations} of {player.name}: {refused}") from refused
            player.is_confirmed, player.is_refused = False, True
            self._note_sent_again(operations)  # it may have acted before it met a damage
            reply = None
        self._take_pushed()
        return reply

    # -- what members are told

    def _take_pushed(self) -> None:
        pushed, self.shard.pushed = self.shard.pushed, Notices()
        for name, notices in pushed.items():
            if name in self.players and not notices:
                self.players[name].is_confirmed = False  # the shard has taken a new generation
            self._take_notices(name, notices)

    def _take_notices(self, name: str, notices: list[list[Any]]) -> None:
        player = self.players.get(name)
        for word, *terms in notices if player else ():
            if word == "set":
                self._told_set.append(name)
                continue
            assert word == "granted", f"{name} was told {word} {terms}"
            self._take_grant(player, terms[0], terms[1:])

    def _take_grant(self, player: Player, attempt_id: str, terms: list[int]) -> None:
        memory = self.memory_of(player)
        if attempt_id not in memory.waits:
            return  # told twice, or cancelled meanwhile
        self._granted.append(memory.waits.pop(attempt_id))
        at_us, limit, cuts, effective_max = terms
        lease = Lease(at_us=at_us, limit=limit, cuts=cuts, effective_max=effective_max)
        self.model.grant(player.name, attempt_id, lease, self.shard.server_us)

    def _answer(self, player: Player, attempt_id: str, result: list[Any]) -> None:
        match result:
            case ["granted", _, *terms]:
                self._take_grant(player, attempt_id, terms)
            case ["waiting"] | ["unknown"]:
                pass
            case ["denied", *_] if attempt_id not in self.memory_of(player).waits:
                pass  # it only tried
            case _:
                raise AssertionError(f"{attempt_id} of {player.name}: {result}")

    def _take_result(self, player: Player, operation: Operation, result: list[Any]) -> None:
        match operation:
            case ("acquire", attempt_id, *_) | ("state", attempt_id):
                self._answer(player, attempt_id, result)
            case ("release", lease_id, *_):
                self.model.release(player.name, lease_id, result[0])
            case ("sweep",):
                self._take_sweep(player, result[2])

    def _take_sweep(self, player: Player, memory: dict[str, Any] | None) -> None:
        if memory is not None:
            player.memory = json.dumps(memory)
            windows = memory["windows"] or {}
            limit = limit_below_cap(parsed(windows.get("chat"), "requests", WINDOW))
            self.model.swept(player.name, limit)

    def _note_order(self) -> None:
        granted, self._granted = self._granted, []
        if self.model.is_whole:
            self.model.check_order(granted)


def limit_below_cap(window: Mapping[str, str]) -> int | None:
    """Return the limit of a window that refusals have lowered; None for any other."""
    limit, highest = window.get("current_limit", ""), window.get("effective_max", "")
    is_lowered = limit.isdigit() and highest.isdigit() and int(limit) < int(highest)
    return int(limit) if is_lowered else None
