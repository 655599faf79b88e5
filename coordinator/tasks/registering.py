"""The operations of ``lua/tasks/batch.lua`` that concern no single task (design 02; design 04)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import unquote

from forebay.contracts.task_policies import TaskAdmissionConfig
from forebay.coordinator.keys import check_id
from forebay.coordinator.shard.operation import (
    Args,
    Leaves,
    Operation,
    OperationWithoutValue,
    Reply,
)
from forebay.coordinator.tasks.names import encode_group, encode_resource
from forebay.coordinator.tasks.operations import named


@dataclass(frozen=True, slots=True)
class Claim(Operation[int]):
    """Claims a limit for a resource, or takes a claim back; answered with the limit in force."""

    resource: str
    holder: str
    limit: int | None

    def encode(self) -> Args:
        holder, limit = check_id("holder", self.holder), "" if self.limit is None else self.limit
        return named("claim", encode_resource(self.resource), holder, limit)

    def decode(self, reply: Reply) -> int:
        return int(reply.terms[1])


@dataclass(frozen=True, slots=True)
class Configure(OperationWithoutValue):
    """Sets a pool's policy."""

    config: TaskAdmissionConfig

    def encode(self) -> Args:
        config, borrow = self.config, self.config.borrow
        events = "full" if config.events == "full" else ""
        reserve_us = round(config.reserve_after_seconds * 1e6)
        if borrow is None:
            return named("configure", "", reserve_us, events, config.max_losses)
        fields: dict[str, str | int] = {
            "share_rounding": borrow.share_rounding,
            "ceiling_reserve": borrow.ceiling_reserve,
        }
        if borrow.default_ceiling is not None:
            fields["ceiling"] = borrow.default_ceiling
        for ceiling in borrow.ceilings:
            place = f"{encode_group(ceiling.group)}\0{encode_resource(ceiling.resource)}"
            fields[f"ceiling:{place}"] = ceiling.units
        pairs = [part for pair in fields.items() for part in pair]
        return named("configure", "borrow", reserve_us, events, config.max_losses, *pairs)


@dataclass(frozen=True, slots=True)
class Report(OperationWithoutValue):
    """Reports an event of a task in its worker, under the lease that it has there."""

    kind: str
    task_id: str
    lease_id: str

    outlives_membership: ClassVar[bool] = False

    def encode(self) -> Args:
        return named("report", self.kind, check_id("task id", self.task_id), self.lease_id)


@dataclass(frozen=True, slots=True)
class Swept:
    """A pool's answer to a sweep.

    Attributes:
        next_seconds: seconds until the next membership may expire; None where there is none.
        memory: the pool's settings and claims as JSON, for `Recall`; None while the pool recovers,
            as what the member remembers is better.
        lost: jobs whose payload the server lost, each with its function, "" where that is unknown.
    """

    next_seconds: float | None
    memory: str | None
    lost: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sweep(Operation[Swept]):
    """Ends members that died, and finds damage, in a pool without other calls."""

    needs_memory: ClassVar[bool] = False
    outlives_membership: ClassVar[bool] = False

    def encode(self) -> Args:
        return named("sweep")

    def decode(self, reply: Reply) -> Swept:
        """Return when to sweep next, the pool's settings and claims, and the lost jobs."""
        _word, next_us, memory, lost = reply.terms
        return Swept(
            next_seconds=None if next_us is None else next_us / 1e6,
            memory=memory and json.dumps(memory),
            lost={unquote(task_id): unquote(function) for task_id, function in lost},
        )


class Leave(Leaves):
    """Ends the membership; its tasks go back to the queue."""

    def encode(self) -> Args:
        return named("leave")
