"""Why a task, group, run, waiter or provider/model does not move (design 07, *Command line*)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from forebay.contracts.snapshots import Snapshot

SubjectKind = Literal[
    "task", "task_group", "run", "pool", "waiter", "lease", "request_group", "provider_model"
]
_ORDINALS: Final = {1: "st", 2: "nd", 3: "rd"}
_TEENS: Final = range(11, 14)
_FEW_SECONDS: Final = 10
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


class Reason(Snapshot):
    """One fact about a subject, as a sentence.

    Attributes:
        code: a stable snake_case name of the fact, such as ``no_capacity``.
        says: the sentence.
        resource: what is lacking, where something is.
        holders: leases or members that have it, the oldest first, at most 3.
        until: server time in seconds at which the fact ends by itself; None where no time ends it.
    """

    code: str
    says: str
    resource: str | None = None
    holders: tuple[str, ...] = ()
    until: float | None = None


class Explanation(Snapshot):
    """The reasons why a task, waiter, group or run does not move, read in one instant.

    Attributes:
        kind: what the subject is.
        name: its name.
        shard: where it lives, ``pool:<name>`` or ``rq:<provider>/<model>``.
        captured_at: server time of the shard, in seconds.
        reasons: its place first, then what blocks it, in the order in which admission asks.
    """

    kind: SubjectKind
    name: str
    shard: str
    captured_at: float
    reasons: tuple[Reason, ...]

    @property
    def available_at(self) -> float | None:
        """The first instant, in server seconds, at which time alone changes something."""
        return min((one.until for one in self.reasons if one.until is not None), default=None)


class Unexplained(Snapshot):
    """A shard that could not be read, so that what it may know of a name is not explained.

    Attributes:
        shard: its tag.
        says: why it could not be read, and what to do.
    """

    shard: str
    says: str


class Explanations(Snapshot):
    """The explanations that a server has for a name.

    Attributes:
        explanations: of each subject that has the name.
        problems: shards that could not be read.
        names: names near which a mistyped one may lie: of shards, and of groups that wait.
    """

    explanations: tuple[Explanation, ...]
    problems: tuple[Unexplained, ...] = ()
    names: tuple[str, ...] = ()


def span(seconds: float) -> str:
    """Return a length of time in words: ``1.2 s``, ``45 s``, ``12 min``, ``3 h 20 min``."""
    seconds = max(0.0, seconds)
    if seconds < _FEW_SECONDS:
        return f"{seconds:.1f} s"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        hours, minutes = divmod(round(seconds / _MINUTE), _MINUTE)
        return f"{hours} h {minutes} min"
    return f"{seconds / _DAY:.0f} d"


def number(count: int, noun: str) -> str:
    """Return a count and its noun: ``1 task``, ``2 tasks``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def counted(count: int, noun: str, verb: str) -> str:
    """Return a count, its noun and a verb that agrees: ``1 task waits``, ``2 tasks wait``."""
    return f"{number(count, noun)} {verb}{'s' if count == 1 else ''}"


def ordinal(place: int) -> str:
    """Return a place in words: ``1st``, ``2nd``, ``11th``."""
    return f"{place}{'th' if place % 100 in _TEENS else _ORDINALS.get(place % 10, 'th')}"


def some(names: Sequence[str], *, most: int = 3) -> str:
    """Return the first names, and how many more there are."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    shown = [*names[:most], *more]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
