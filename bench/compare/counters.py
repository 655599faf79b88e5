"""Counters of a server: its commands, and the time of its functions."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Self

import redis

OURS: Final = frozenset({"info", "scan", "flushall"})
"""Commands that the bench itself gives while a library, which gives none of them, is measured."""


class Counted(NamedTuple):
    """Counts of a server since its start, or between two reads.

    Attributes:
        commands: how many it ran, those within scripts too.
        function_us: the time of its ``FCALL``, with what they ran.
    """

    commands: int
    function_us: float

    def since(self, before: Self) -> Counted:
        """Return what was counted since an earlier look."""
        return Counted(self.commands - before.commands, self.function_us - before.function_us)

    def per(self, count: int, name: str) -> dict[str, float]:
        """Return the measures of one of ``count`` pairs or jobs; nothing of none."""
        if not count:
            return {}
        return {
            f"{name}.commands": self.commands / count,
            f"{name}.fcall_us": self.function_us / count,
        }


def counted(client: redis.Redis) -> Counted:
    """Read a server's counters; a command within a script counts as one that a client sent."""
    stats: Any = client.info("commandstats")  # redis-py types its calls as maybe awaited
    names = {name: name.removeprefix("cmdstat_").partition("|")[0] for name in stats}
    return Counted(
        commands=sum(int(stats[name]["calls"]) for name in stats if names[name] not in OURS),
        function_us=float(stats.get("cmdstat_fcall", {}).get("usec", 0)),
    )
