"""A simulated scenario: provider, fleets, faults, and the time spans that are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from random import Random
from typing import Any

from bench.simulate.callers import Callers
from bench.simulate.provider import Provider
from forebay.contracts.identity import RequestDomain

FLOOD = Callers(count=64)
"""The page's fleet: 4 processes of 16 callers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Processes that share one server.

    Attributes:
        callers: what they do, spread over the members.
        members: how many processes.
        cap: what each registers.
        begins: second at which it starts.
        config: fields of the registered configuration besides the rule's tuning.
    """

    callers: tuple[Callers, ...] = (FLOOD,)
    members: int = 4
    cap: int = 64
    begins: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def domains(self) -> tuple[RequestDomain, ...]:
        """The windows that it uses."""
        return tuple(dict.fromkeys(callers.domain for callers in self.callers))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A row.

    Attributes:
        name: on the command line.
        about: one line for ``--list``.
        provider: makes it, with the draws that it is given.
        seconds: how long the row runs.
        settled: spans of seconds that count as settled.
        fleets: who calls.
        way_seconds: from a caller to the provider, and the same back, at least.
        delay_seconds: the mean of what a busy machine adds to each way, exponentially.
        kills: (second, number of a member of the first fleet): it is killed, and a new one takes
            its callers over two seconds later.
        step_at: second from which refusals of the first five seconds are counted; 0 is the birth.
    """

    name: str
    about: str
    provider: Callable[[Random], Provider]
    _: KW_ONLY
    seconds: float = 90.0
    settled: tuple[tuple[float, float], ...] = ((30.0, 1e9),)
    fleets: tuple[Fleet, ...] = (Fleet(),)
    way_seconds: float = 0.001
    delay_seconds: float = 0.0
    kills: tuple[tuple[float, int], ...] = ()
    step_at: float = 0.0
