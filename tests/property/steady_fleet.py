"""Callers of one domain under the modelled rule ``steady``, without a shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tests.property.window_state_model import LeaseEnd, Said, WindowState
from tests.property.window_steady_model import SteadySettings, recap, refuse, succeed


@dataclass(slots=True, kw_only=True)
class Fleet:
    """As many callers as ``demand``, each of which asks again as soon as its lease ended.

    Attributes:
        leases: the cuts at the grant of each lease that is out, the oldest first.
        refused_fresh: refusals of leases that were granted since the refusal before.
        granted: leases granted so far.
        said: the events of the window so far.
    """

    window: WindowState
    settings: SteadySettings = field(default_factory=SteadySettings)
    demand: int = 10**6
    now_us: int = 1_000_000
    leases: list[int] = field(default_factory=list)
    refused_fresh: int = 0
    in_a_row: int = 0
    granted: int = 0
    said: list[Said] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return len(self.leases) >= self.window.limit

    @property
    def is_cooling(self) -> bool:
        return self.now_us < self.window.blocked_until_us

    def grant(self) -> int:
        """Grant what may go; returns how many leases that are."""
        before = len(self.leases)
        room = min(self.window.limit, self.demand)
        if not self.is_cooling and before < room:
            self.leases += [self.window.cuts] * (room - before)
        self.granted += len(self.leases) - before
        return len(self.leases) - before

    def pass_time(self, us: int) -> None:
        self.now_us += us
        self.grant()

    def wait_out_the_cooldown(self) -> None:
        self.pass_time(max(0, self.window.blocked_until_us - self.now_us))

    def _end(self, pick: int, hint_us: int = 0) -> LeaseEnd:
        in_flight = len(self.leases)
        cuts = self.leases.pop(pick)
        return LeaseEnd(now_us=self.now_us, in_flight=in_flight, cuts=cuts, hint_us=hint_us)

    def serve(self, pick: int = 0) -> int:
        self.window.served += 1
        self.in_a_row = 0
        self.said += succeed(self.window, self.settings, self._end(pick))
        return self.grant()

    def refuse(self, pick: int = -1, hint_us: int = 0) -> int:
        self.in_a_row += 1
        end = replace(self._end(pick, hint_us), in_a_row=self.in_a_row)
        self.refused_fresh += end.cuts == self.window.cuts
        self.said += refuse(self.window, self.settings, end)
        return self.grant()

    def lose(self, pick: int = 0) -> int:
        """A lease ends without a word of the provider: its member died, its call was cancelled."""
        self._end(pick)
        return self.grant()

    def recap(self, effective_max: int) -> int:
        self.said += recap(self.window, effective_max)
        return self.grant()

    def fall_to_the_first_cooldown(self, picks: Iterator[int]) -> None:
        """Refuse each lease that is out, in some order, until nobody may go."""
        while not self.is_cooling:
            self.refuse(next(picks) % len(self.leases))

    def meet_limit(self, limit: int, successes: int) -> tuple[int, int]:
        """Call a provider that serves ``limit`` at once and refuses the others at once.

        Returns:
            How many calls were served, and how many were refused.
        """
        served = refused = 0
        while served < successes:
            self.wait_out_the_cooldown()
            if len(self.leases) > limit:
                self.refuse()
                refused += 1
            else:
                self.serve()
                served += 1
        return served, refused
