"""Callers of one domain of a request shard, who ask again as soon as their attempt ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from forebay.contracts.identity import RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from tests.support_records import read_window
from tests.support_scripts import CHAT, Acquire, Op, Release, ScriptedShard
from tests.support_state import audited

LONG_TTL_SECONDS = 3600.0


def steady(initial: int | None = None, **tuning: Any) -> RequestAdmissionConfig:
    """Return settings of the rule ``steady`` with a chat window born at a limit."""
    return RequestAdmissionConfig(
        tuning=RequestAdmissionTuningConfig(rule="steady", **tuning),
        initial_limits={} if initial is None else {CHAT: initial},
    )


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that is out."""

    lease_id: str
    member: str
    cuts: int


@dataclass(slots=True)
class Callers:
    """As many attempts under way as callers came, each in flight or waiting.

    Attributes:
        held: the leases that are out, the oldest first.
        waiting: how many attempts wait.
        refused_fresh: refusals of leases that were granted since the refusal before.
        granted: leases granted so far.
        asked: attempts so far; they are named by the domain and a number from 1 on.
    """

    shard: ScriptedShard
    domain: RequestDomain = CHAT
    held: list[Held] = field(default_factory=list)
    waiting: int = 0
    refused_fresh: int = 0
    granted: int = 0
    asked: int = 0

    @property
    def window(self) -> dict[str, Any]:
        """The domain's window as it is stored, once its books agree."""
        window: dict[str, Any] = audited(self.shard.client, self.shard.keys)["windows"][self.domain]
        return window

    def stored(self, name: str) -> int:
        """Return one number of the stored window."""
        return int(read_window(self.shard.client, self.shard.keys, self.domain).get(name, "0"))

    @property
    def limit(self) -> int:
        return self.stored("current_limit")

    @property
    def is_cooling(self) -> bool:
        return self.shard.server_us < self.stored("blocked_until_us")

    @property
    def is_full(self) -> bool:
        return len(self.held) >= self.limit

    def _ask(self) -> Acquire:
        self.asked += 1
        return Acquire(f"{self.domain}{self.asked}", self.domain)

    def call(self, member: str, *ops: Op) -> int:
        """Run a batch; return how many leases of this domain it granted."""
        reply, before = self.shard.batch(member, *ops), self.granted
        for op, result in zip(ops, reply.results, strict=True):
            if isinstance(op, Acquire):
                self.waiting += result[0] == "waiting"
                self._note(member, result)
            elif isinstance(op, Release):
                assert result == ["released"]
        for notice in reply.notices:
            self.waiting -= self._note(member, notice)
        for other, notices in self.shard.pushed.items():
            for notice in notices:
                self.waiting -= self._note(other, notice)
        return self.granted - before

    def _note(self, member: str, result: list[Any]) -> bool:
        """Note a grant to an attempt of this domain."""
        if result[0] != "granted" or not result[1].startswith(self.domain):
            return False
        self.held.append(Held(result[1], member, result[4]))
        self.granted += 1
        return True

    def come(self, count: int, member: str = "m") -> int:
        """More callers ask; return how many were granted at once."""
        return self.call(member, *(self._ask() for _ in range(count)))

    def settle(self) -> int:
        """Let the shard look at its clock, as a member's timer does."""
        return self.call("m")

    def end(
        self, pick: int, outcome: Outcome, hint: float | None = None, *, again: bool = True
    ) -> int:
        """An attempt ends and its caller asks again; return how many were granted."""
        lease = self.held.pop(pick)
        ops: list[Op] = [Release(lease.lease_id, outcome, hint)]
        return self.call(lease.member, *ops, *([self._ask()] if again else []))

    def serve(self, pick: int = 0, *, again: bool = True) -> int:
        return self.end(pick, Outcome.SUCCESS, again=again)

    def refuse(self, pick: int = -1, hint: float | None = None, *, again: bool = True) -> int:
        self.refused_fresh += self.held[pick].cuts == self.stored("cuts")
        return self.end(pick, Outcome.RATE_LIMITED, hint, again=again)

    def wait_out_the_cooldown(self) -> int:
        """Let time pass to the end of the cooldown; return how many were granted then."""
        self.shard.set_clock(max(self.shard.server_us, self.stored("blocked_until_us")))
        return self.settle()

    def fall_to_the_first_cooldown(self, picks: Iterator[int]) -> None:
        """Refuse each lease that is out, in some order, until nobody may go."""
        while not self.is_cooling:
            self.refuse(next(picks) % len(self.held))

    def meet_limit(self, limit: int, successes: int) -> tuple[int, int]:
        """Call a provider that serves ``limit`` at once and refuses the others at once.

        Returns:
            How many calls were served, and how many were refused.
        """
        served = refused = 0
        while served < successes:
            if not self.held:
                self.wait_out_the_cooldown()
            if len(self.held) > limit:
                self.refuse()
                refused += 1
            else:
                self.serve()
                served += 1
        return served, refused


def callers_of(
    shard: ScriptedShard, cap: int, config: RequestAdmissionConfig, count: int = 300
) -> Callers:
    """Make a member "m", and callers of its resource, who begin at once."""
    shard.open(cap, config=config)
    shard.heartbeat("m", LONG_TTL_SECONDS)
    callers = Callers(shard)
    callers.come(count)
    return callers
