"""A reference model of one request shard, plain, slow and obvious.

From design 03, design 06 and ADR 0007 alone.

It does not bound the work of a call, so whoever compares stays below 64 grants and 200 ended
leases per call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from forebay.contracts.identity import RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.quotas import QuotaBudget
from tests.property import window_minute_model as minute
from tests.property.request_queue_model import Waiter
from tests.property.request_state_model import Lease, ModelReply, ModelState, Result
from tests.property.request_window_model import Ended, Window, ceiling_of, to_us
from tests.support_scripts import (
    RUN_ID,
    Acquire,
    Cancel,
    Learn,
    Leave,
    Notices,
    Op,
    Refused,
    Register,
    Release,
    State,
)

LASTING_US = 1_000_000
"""How long somebody waits before that is an event."""
LOCAL = {Outcome.LOCAL_CANCELLED, Outcome.LOCAL_TIMEOUT}


@dataclass(slots=True)
class RequestModel(ModelState):
    """One provider/model as the design describes it."""

    # -- members (design 06)

    def _flow(self) -> int:
        """Let time pass; returns how long the shard had heard of nobody."""
        before_us, self.now_us = self.now_us, self.read_clock()
        is_first, self.last_us = self.last_us is None, self.server_us
        for domain, window in self.windows.items():
            window.end_ramp(self.now_us)
            minute.pass_time(window, self.in_flight(domain), self.now_us, window.consecutive)
        return 0 if is_first else self.now_us - before_us

    def join(self, member: str, ttl_us: int) -> Result:
        silent_us = self._flow()
        self.members[member] = self.now_us + ttl_us
        self.listeners.beat(member, ttl_us, self.now_us, silent_us)
        return [self.now_us, self.generation, len(self.members), "joined", "", RUN_ID, 0]

    def confirm(self, member: str, ttl_us: int) -> Result:
        """Answer a member that connects again: it still is one, or its membership has expired."""
        if self.members.get(member, 0) <= self.read_clock():
            return [self.read_clock(), self.generation, 0, "expired", "", "", 0]
        now_us, members = self.heartbeat(member, ttl_us)
        last, _reply = self.replies.get(member, (0, None))
        return [now_us, self.generation, members, "member", "", RUN_ID, last]

    def heartbeat(self, member: str, ttl_us: int) -> Result:
        """Renew a membership that is not over; an overdue one never comes back to life."""
        now_us = self.read_clock()
        if self.members.get(member, 0) <= now_us:
            return [now_us, 0]
        silent_us = self._flow()
        self.members[member] = now_us + ttl_us
        self.listeners.beat(member, ttl_us, now_us, silent_us)
        return [now_us, len(self.members)]

    def _end_member(self, member: str, reason: str) -> None:
        self.members.pop(member, None)
        self.listeners.forget(member)
        self.replies.pop(member, None)
        for lease in [lease for lease in self.leases.values() if lease.member == member]:
            self._lose(lease, reason)
        for waiter in [waiter for waiter in self.queue.waiters.values() if waiter.member == member]:
            self._remove(waiter)
        before = self.static_cap
        self.caps = {key: cap for key, cap in self.caps.items() if key[0] != member}
        self._caps_moved(before)

    def _lose(self, lease: Lease, reason: str) -> None:
        self.say("request_lease_expired", lease.lease_id, lease.member, reason)
        self._end(lease, None, "expired")

    # -- settling (design 03, *Order*)

    def settle(self, caller: str | None = None) -> None:
        """What time alone did, then what became possible."""
        silent_us, self.caller = self._flow(), caller
        if caller is not None:
            self.listeners.suspects.pop(caller, None)
        self._take_back_in_line()
        self.listeners.call(caller, self.now_us, silent_us)
        for member, why in self.listeners.looked_at(self.members, caller, self.now_us):
            if why:
                self._end_member(member, why)
            self._take_back_in_line()
        if self.config.max_hold_seconds is not None:
            for lease in list(self.leases.values()):
                if lease.held_until_us <= self.now_us:
                    self._lose(lease, "max_hold")
                    self.tell(lease.member, ["lost", lease.lease_id, "max_hold"])
        self._deny_unregistered()
        self._deny_overdue(self.now_us - 1)  # a deadline that has passed is served first
        self._grant_waiters()
        self._deny_overdue(self.now_us)  # at the very same instant the grant wins
        self._grant_waiters()  # who was denied may have kept a quota

    def _take_back_in_line(self) -> None:
        """A member that is a suspect no more lost no place in line."""
        for waiter in self.queue.waiters.values():
            if waiter.is_aside and waiter.member not in self.listeners.suspects:
                self.queue.come_back(waiter, self.now_us)

    def _deny_overdue(self, last_us: int) -> None:
        for waiter in list(self.queue.waiters.values()):
            if waiter.deadline_us <= last_us:
                self._deny(waiter, "queue_timeout")

    def _deny_unregistered(self) -> None:
        if self.static_cap == 0:
            for waiter in list(self.queue.waiters.values()):
                self._deny(waiter, "hard_policy_denial")

    def _deny(self, waiter: Waiter, reason: str) -> None:
        self._remove(waiter)
        timed_out = reason == "queue_timeout"
        why = self._timed_out(waiter.domain, waiter.cost) if timed_out else [0, 0]
        self.tell(waiter.member, ["denied", waiter.attempt_id, reason, *why])

    def _timed_out(self, domain: RequestDomain, cost: int) -> list[Any]:
        """When asking again may help; where budgets are lacking, the one lacking longest."""
        lacks = self.quotas.lacks(cost, self.now_us)
        if not lacks:
            return self._may_help(domain)
        longest = max((b for b in QuotaBudget if b in lacks), key=lambda budget: lacks[budget])
        at_us = max(lacks[longest], self.windows[domain].blocked_until_us, self.opens_us(domain))
        return [at_us, at_us - self.now_us, "lacks_quota", longest.value]

    def _may_help(self, domain: RequestDomain) -> list[int]:
        """When asking again may help, as an instant and from now: a cooldown or a minute ends."""
        blocked_until_us = self.windows[domain].blocked_until_us
        is_cooling = blocked_until_us > self.now_us
        until_us = blocked_until_us if is_cooling else self.opens_us(domain)
        return [until_us, until_us - self.now_us] if until_us > self.now_us else [0, 0]

    def _remove(self, waiter: Waiter) -> None:
        self._say_formed(waiter.domain)
        self.queue.remove(waiter, self.now_us)
        if not self.queue.waiting(waiter.domain):
            _since_us, is_told = self.queued.pop(waiter.domain)
            if is_told:
                self.say("request_queue_drained", waiter.domain)

    def _say_formed(self, domain: RequestDomain) -> None:
        """Write the event of a queue that has lasted for a second, at the queue's next change."""
        since_us, is_told = self.queued[domain]
        if not is_told and self.now_us - since_us >= LASTING_US:
            self.say("request_queue_formed", domain)
            self.queued[domain] = since_us, True

    def _grant_waiters(self) -> None:
        """Grant until no head of a line may go; those of suspects step aside."""
        while waiter := self._first_to_grant():
            self._remove(waiter)
            lease = self._grant(
                waiter.attempt_id, waiter.member, waiter.domain, waiter.group, waiter.cost
            )
            self.tell(waiter.member, lease.granted)

    def _first_to_grant(self) -> Waiter | None:
        while absent := self.first_absent():
            self.queue.step_aside(absent, self.now_us)
        return self.first_able()

    def _grant(
        self, attempt_id: str, member: str, domain: RequestDomain, group: str, cost: int
    ) -> Lease:
        self.queue.take_turn(group, self.turn(cost), self.now_us)
        self.quotas.draw(cost, self.now_us)
        window = self.windows[domain]
        limit = window.limit_at(self.now_us)
        hold = self.config.max_hold_seconds
        lease = Lease(
            lease_id=attempt_id,
            member=member,
            domain=domain,
            group=group,
            terms=[self.now_us, limit, window.cuts, window.effective_max],
            cuts=window.cuts,
            limit=limit,
            held_until_us=math.inf if hold is None else self.now_us + to_us(hold),
            cost=cost,
        )
        assert self.in_flight(domain) < limit <= window.effective_max
        assert self.in_flight() < self.static_cap
        self.leases[attempt_id] = lease
        return lease

    # -- batches (design 06, *Exactly once*)

    def batch(self, member: str, number: int, ops: tuple[Op, ...]) -> ModelReply:
        """Run a batch once; a repeat is answered from memory.

        Raises:
            Refused: OLDBATCH or NOMEMBER.
        """
        if member in self.replies:
            last, reply = self.replies[member]
            if number == last:
                return reply
            if number < last:
                raise Refused("OLDBATCH")
        self.told = {}
        self.settle(member)
        if member not in self.members:
            raise Refused("NOMEMBER")
        results = [self._apply(member, op) for op in ops]
        own = self.told.pop(member, [])
        reply = ModelReply(now_us=self.now_us, results=results, notices=own, pushed=self.told)
        if member in self.members:
            self.replies[member] = (number, reply)
        return reply

    def _apply(self, member: str, op: Op) -> Result:
        if isinstance(op, Acquire | Register) and member not in self.members:
            return ["error", "NOMEMBER", member]
        result: Result
        match op:
            case Acquire():
                result = self._acquire(member, op)
            case Release():
                result = self._release(member, op)
            case Cancel():
                result = self._cancel(member, op.attempt_id)
            case State():
                result = self.own(member, op.attempt_id) or ["unknown"]
            case Register():
                result = self._register(member, op)
            case Learn():
                result = self._learn(op)
            case Leave():
                result = self._leave(member)
        return result

    def _acquire(self, member: str, op: Acquire) -> Result:
        if own := self.own(member, op.attempt_id):
            return own
        in_use = op.attempt_id in self.leases or op.attempt_id in self.queue.waiters
        if in_use or self.finished.get(op.attempt_id) == "released":
            return ["error", "ATTEMPT_ID_USED", op.attempt_id]
        if self.static_cap == 0:
            return ["denied", "hard_policy_denial", 0, 0]
        if budget := self.quotas.never_fits(op.cost):
            return ["denied", "hard_policy_denial", 0, 0, "never_fits", budget.value]
        return self._admit(member, op)

    def _admit(self, member: str, op: Acquire) -> Result:
        """Grant, deny, or let wait one that may ask."""
        if op.domain not in self.windows:
            known = ceiling_of(self.config, op.domain, self.static_cap)
            self.windows[op.domain] = Window.born(self.config, op.domain, known, self.now_us)
        self.queue.set_weight(op.group, op.weight, self.now_us)
        # Everybody who may go was granted before, so who may pass goes past nobody who may.
        if self.may_pass(op):
            result = self._grant(op.attempt_id, member, op.domain, op.group, op.cost).granted
            self._grant_waiters()  # its group's turn is over: another may be first now
            return result
        if op.wait in {"try", 0}:
            return self._refusal(op)
        if self.queue.waiting(op.domain):
            self._say_formed(op.domain)
        else:
            self.queued[op.domain] = self.now_us, False
        waiter = Waiter(
            attempt_id=op.attempt_id,
            member=member,
            domain=op.domain,
            group=op.group,
            deadline_us=math.inf if op.wait is None else self.now_us + to_us(float(op.wait)),
            cost=op.cost,
        )
        self.queue.add(waiter, self.now_us)
        self._grant_waiters()  # a group that waits elsewhere may stand before equal tags here
        return ["waiting"]

    def _refusal(self, op: Acquire) -> Result:
        may_help, lacks = self._may_help(op.domain), self.quotas.lacks(op.cost, self.now_us)
        is_open = self.may_go(op.domain)
        if op.wait == 0:
            return ["denied", "queue_timeout", *self._timed_out(op.domain, op.cost)]
        if self.windows[op.domain].blocked_until_us > self.now_us:
            reason = "cooldown"
        elif self.queue.waiting(op.domain) or (is_open and not lacks):
            reason = "queued_waiters_ahead"
        elif is_open:
            at_us = max(lacks.values())
            reason, may_help = "quota", [at_us, at_us - self.now_us]
        else:
            reason = "no_capacity"
        return ["denied", reason, *may_help]

    def _release(self, member: str, op: Release) -> Result:
        result = self._give_back(member, op)
        if result != ["released"]:
            self.say("request_release_diagnostic", "", op.lease_id, *result)
        return result

    def _give_back(self, member: str, op: Release) -> Result:
        lease = self.leases.get(op.lease_id)
        if lease is None:
            match self.finished.get(op.lease_id):
                case "released":
                    return ["duplicate"]
                case "expired":
                    return ["stale_lease"]
                case _:
                    is_ours = op.generation == self.generation
                    return ["unknown_lease" if is_ours else "wrong_generation"]
        if lease.member != member:
            return ["stale_lease"]
        self._end(lease, op, "released")
        if op.used is not None:
            unsent = op.used == 0 and op.outcome in LOCAL
            self.quotas.settle(lease.cost, op.used, self.now_us, unsent=unsent)
            difference = self.turn(op.used) - self.turn(lease.cost)
            self.queue.settle_turn(lease.group, difference, self.now_us)
        self._grant_waiters()
        return ["released"]

    def _end(self, lease: Lease, release: Release | None, how: str) -> None:
        """End a lease as its holder says, or without a word of it."""
        ended = Ended(
            outcome=release.outcome if release else Outcome.MEMBER_LOST,
            hint_seconds=release and release.retry_after_seconds,
            scope=release and release.scope,
            in_flight=self.in_flight(lease.domain),
            now_us=self.now_us,
        )
        del self.leases[lease.lease_id]
        self.finished.pop(lease.lease_id, None)
        self.finished[lease.lease_id] = how
        said = self.windows[lease.domain].on_outcome(self.config, lease, ended)
        self._say_of_window(lease.domain, said)

    def _cancel(self, member: str, attempt_id: str) -> Result:
        waiter = self.queue.waiters.get(attempt_id)
        if waiter is not None and waiter.member == member:
            self._remove(waiter)
            self._grant_waiters()  # it may have kept a quota
            return ["cancelled"]
        outcome, generation = Outcome.LOCAL_CANCELLED, self.generation
        return self._give_back(member, Release(attempt_id, outcome, generation=generation, used=0))

    def _register(self, member: str, op: Register) -> Result:
        before, cap_before = self.static_cap, self.caps.get((member, op.alias), 0)
        settings = self._settings()
        self.caps[member, op.alias], self.config = op.cap, op.config
        self.quotas.register(op.config.quotas, self.now_us)
        if cap_before != op.cap:
            self.say("request_resource_registered", op.alias, cap_before, op.cap, member)
        for setting, value in self._settings().items():
            if settings[setting] != value:
                self.say(
                    "request_setting_changed", setting, settings[setting], value, op.alias, member
                )
        self._caps_moved(before)
        self._grant_waiters()
        return ["registered", self.static_cap]

    def _settings(self) -> dict[str, str]:
        """Return what is registered besides caps, as events tell it; "" for none."""
        config, tuning = self.config, self.config.tuning
        hold = config.max_hold_seconds
        settings: dict[str, object] = {
            "rule": tuning.rule,
            "successes_until_try": tuning.successes_until_try,
            "round_successes": tuning.round_successes,
            "multiplicative_decrease_factor": tuning.multiplicative_decrease_factor,
            "additive_increase_step": tuning.additive_increase_step,
            "successes_until_increase": tuning.successes_until_increase,
            "cooldown_us": to_us(tuning.cooldown_seconds),
            "startup_ramp_us": to_us(tuning.startup_ramp_seconds),
            "max_cooldown_us": to_us(config.max_cooldown_seconds),
            "max_hold_us": "" if hold is None else to_us(hold),
            "fair_by": config.fair_by,
        }
        for domain in RequestDomain:
            settings[f"initial_limit:{domain}"] = config.initial_limits.get(domain, "")
            settings[f"max_limit_clamp:{domain}"] = config.max_limit_clamps.get(domain, "")
        for budget in QuotaBudget:
            bucket = self.quotas.buckets.get(budget)
            settings[budget] = (bucket and bucket.registered) or ""
            settings[f"{budget}_burst"] = (bucket and bucket.registered_burst) or ""
        return {name: str(value) for name, value in settings.items()}

    def _learn(self, op: Learn) -> Result:
        if self.quotas.learn(op.reading, op.at_us, self.now_us):
            budget = op.reading.budget
            limit = self.quotas.buckets[budget].limit
            self.corrections.append((str(self.now_us), budget.value, str(limit)))
        self._grant_waiters()
        return ["learned"]

    def _leave(self, member: str) -> Result:
        self._end_member(member, "left")
        self._deny_unregistered()
        self._grant_waiters()
        return ["left"]

    def _caps_moved(self, before: int) -> None:
        if before != self.static_cap:
            self.say("request_effective_cap_changed", before, self.static_cap)
        if self.static_cap > 0:
            for domain in [domain for domain in RequestDomain if domain in self.windows]:
                window = self.windows[domain]
                said = window.on_caps(self.config, domain, self.static_cap, self.now_us)
                self._say_of_window(domain, said)

    # -- what an operator does (design 03; design 07)

    def administer(self, operation: str, subject: str) -> tuple[int, Notices]:
        """Return the value that the operation answers with, and what members are told."""
        self.told = {}
        self.settle()
        value = 0
        match operation:
            case "reset_window":
                value = self._reset_window(RequestDomain(subject))
            case "reset_cooldown":
                value = self._reset_cooldown(RequestDomain(subject))
            case "override_cap":
                before, override_before = self.static_cap, self.override
                self.override = int(subject or 0) or None
                if self.override != override_before:
                    moved = (override_before or 0, self.override or 0)
                    self.say("request_override_cap_changed", *moved)
                self._caps_moved(before)
                value = self.static_cap
        self._grant_waiters()
        return value, self.told

    def _reset_window(self, domain: RequestDomain) -> int:
        if domain not in self.windows:
            return 0
        window = self.windows[domain]
        said = window.reset(self.config, domain, self.static_cap, self.now_us)
        self._say_of_window(domain, said)
        return window.limit_at(self.now_us)

    def _reset_cooldown(self, domain: RequestDomain) -> int:
        window = self.windows.get(domain)
        if window is None:
            return 0
        left_us = max(window.blocked_until_us, window.quiet_until_us) - self.now_us
        if left_us <= 0:
            return 0
        window.blocked_until_us = min(window.blocked_until_us, self.now_us)
        window.quiet_until_us = min(window.quiet_until_us, self.now_us)
        window.quota_until_us = min(window.quota_until_us, self.now_us)
        self.say("request_cooldown_reset", domain, left_us)
        return left_us

    def _say_of_window(self, domain: RequestDomain, said: Iterator[tuple[str, ...]]) -> None:
        for kind, *fields in said:
            self.say(kind, domain, *fields)
