"""Operations of ``lua/requests/batch.lua`` for a whole membership (design 02; design 03)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from forebay.contracts.identity import RequestDomain
from forebay.contracts.quotas import QuotaBudget, QuotaReading
from forebay.contracts.settings import RequestAdmissionConfig
from forebay.coordinator.keys import check_id
from forebay.coordinator.requests.shares import Share, decode_share
from forebay.coordinator.shard.operation import (
    Args,
    Leaves,
    Operation,
    OperationWithoutValue,
    Reply,
)


@dataclass(frozen=True, slots=True)
class Register(Operation[int]):
    """Registers an alias with its cap and the resource's tuning; answered with the static cap."""

    alias: str
    cap: int
    config: RequestAdmissionConfig

    def encode(self) -> Args:
        config, tuning = self.config, self.config.tuning
        hold = config.max_hold_seconds
        values: list[str] = [
            tuning.rule,
            str(tuning.successes_until_try),
            str(tuning.round_successes),
            repr(tuning.multiplicative_decrease_factor),
            str(tuning.additive_increase_step),
            str(tuning.successes_until_increase),
            str(round(tuning.cooldown_seconds * 1e6)),
            str(round(tuning.startup_ramp_seconds * 1e6)),
            str(round(config.max_cooldown_seconds * 1e6)),
            "" if hold is None else str(round(hold * 1e6)),
        ]
        for limits in (config.initial_limits, config.max_limit_clamps):
            values += [str(limits.get(domain, "")) for domain in RequestDomain]
        values.append(config.fair_by)
        if config.quotas is not None:
            limits_of_budgets = [getattr(config.quotas, budget) for budget in QuotaBudget]
            bursts = [config.quotas.bursts.get(budget) for budget in QuotaBudget]
            values += ["" if n is None else str(n) for n in (*limits_of_budgets, *bursts)]
        return ("register", check_id("alias", self.alias), self.cap, ",".join(values))

    def decode(self, reply: Reply) -> int:
        return int(reply.terms[1])


@dataclass(frozen=True, slots=True)
class Learn(OperationWithoutValue):
    """The operation that sends a quota reading of an answer's headers to a shard."""

    reading: QuotaReading
    at_us: int

    def encode(self) -> Args:
        reading = self.reading
        limit, remaining = ("" if n is None else n for n in (reading.limit, reading.remaining))
        return ("learn", reading.budget.value, limit, remaining, self.at_us)


@dataclass(frozen=True, slots=True)
class Swept:
    """A shard's answer to a sweep.

    Attributes:
        next_seconds: seconds until the next membership may expire; None where there is none.
        memory: the shard's windows, budgets and settings as JSON, for `Recall`; None while the
            shard recovers, as what the member remembers is better.
    """

    next_seconds: float | None
    memory: str | None


@dataclass(frozen=True, slots=True)
class Sweep(Operation[Swept]):
    """Ends expired memberships and finds damage on a shard without other calls."""

    needs_memory: ClassVar[bool] = False
    outlives_membership: ClassVar[bool] = False

    def encode(self) -> Args:
        return ("sweep",)

    def decode(self, reply: Reply) -> Swept:
        """Return when to sweep next, and the shard's windows, budgets and settings."""
        _word, next_us, memory = reply.terms
        next_seconds = None if next_us is None else next_us / 1e6
        return Swept(next_seconds=next_seconds, memory=memory and json.dumps(memory))


@dataclass(frozen=True, slots=True)
class AskShare(Operation[Share]):
    """Asks for this member's share of the window, should the server go away (docs/adr/0024).

    Attributes:
        known: the ticket of the last reply that this member has of its membership; 0 for none.
    """

    known: int

    needs_memory: ClassVar[bool] = False
    outlives_membership: ClassVar[bool] = False

    def encode(self) -> Args:
        return ("share", self.known)

    def decode(self, reply: Reply) -> Share:
        return decode_share(reply.terms)


class Leave(Leaves):
    """The operation that ends the membership and releases its leases and waiters."""

    def encode(self) -> Args:
        return ("leave",)
