"""What must hold after every run, on any machine, at any speed; and the table of what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.harness import InvariantBrokenError, final_snapshots
from bench.shared_capacity.children import Counting
from bench.shared_capacity.load import HTTP_OK, HTTP_TOO_MANY, Load, Tally, Way, run_load
from forebay.coordinator.server.embedded import EmbeddedServer

_OUTCOMES: Final = {"success": HTTP_OK, "rate_limited": HTTP_TOO_MANY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The tightest limit of a provider, as who knows it would use it up.

    Attributes:
        name: for the table.
        calls_per_second: how many answers it lets through at most, in the long run.
        settled_after: seconds from which on it is measured; before, a bucket that was full or a
            window that still falls would tell of something else.
    """

    name: str
    calls_per_second: float
    settled_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run, for the table."""

    provider: str
    way: str
    tally: Tally
    load: Load
    limit: Limit

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        tally, since, until = self.tally, self.limit.settled_after, self.load.seconds
        late_per_second = tally.count(HTTP_OK, since, until) / (until - since)
        return (
            self.provider,
            self.way,
            f"{tally.calls}",
            f"{tally.count(HTTP_OK)}",
            f"{tally.count(HTTP_TOO_MANY)}",
            f"{tally.given_up}",
            f"{tally.refused_share():.1%}",
            f"{tally.refused_share(since, until):.2%}",
            f"{tally.finished_at:.0f}",
            f"{late_per_second:.2f}",
            f"{self.limit.name}: {self.limit.calls_per_second:.2f}",
            f"{late_per_second / self.limit.calls_per_second:.1%}",
        )


HEADER: Final = (
    "provider",
    "client",
    "calls",
    "200s",
    "429s",
    "given up",
    "429 share",
    "429 share, settled",
    "seconds",
    "200s/s, settled",
    "tightest limit, 200s/s",
    "share of it",
)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    ruler = ("---", "---", *["---:"] * (len(HEADER) - 4), "---", "---:")
    lines = [HEADER, ruler, *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def compare(
    provider: str,
    load: Load,
    limit: Limit,
    ways: Sequence[Way],
    counts: Counting,
    *,
    before: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Put the same load on a provider in each way, the bare one first, and check the books.

    Args:
        provider: its name, for the table.
        load: what the processes do.
        limit: the provider's tightest.
        ways: how they reach it.
        counts: the provider's own.
        before: called before each run, to begin all of them alike.

    Raises:
        InvariantBrokenError: a lease or waiter is left, the audit differs, a call ended otherwise
            than by a completion or the SDK's own giving up, the provider counted other answers
            than clients or Forebay did, the bare clients met no limit, or Forebay's no fewer.
    """
    rows: list[Row] = []
    for way in ways:
        before()
        print(f"{provider}: {way.name}, {load.seconds:g} s and what is then under way", flush=True)
        with EmbeddedServer() as server:
            counts.begin()
            tally = run_load(load, way, server.url)
            row = Row(provider=provider, way=way.name, tally=tally, load=load, limit=limit)
            told = counts.since(tally.statuses.total())
            _check_calls(row)
            _expect(told == tally.statuses, row, f"provider {told}, clients {tally.statuses}")
            if way.max_parallel_requests is not None:
                _check_forebay(row, server.url)
        rows.append(row)
    _check_shares(rows)
    return rows


def _check_calls(row: Row) -> None:
    tally = row.tally
    _expect(not tally.others, row, f"calls that ended with {dict(tally.others)}")
    ended = tally.ok + tally.given_up
    _expect(tally.calls == ended, row, f"{tally.calls} calls, of which {ended} ended")
    statuses = tally.statuses
    _expect(set(statuses) <= {HTTP_OK, HTTP_TOO_MANY}, row, f"answers {statuses}")
    _expect(statuses[HTTP_OK] == tally.ok, row, f"{tally.ok} completions of answers {statuses}")


def _check_forebay(row: Row, redis_url: str) -> None:
    key = row.load.provider_model
    snapshot: dict[str, Any] = final_snapshots(redis_url, key)[str(key)]["snapshot"]
    outcomes = {k: n for k, n in snapshot["domains"]["chat"]["outcomes"].items() if n}
    seen = {kind: n for kind, status in _OUTCOMES.items() if (n := row.tally.count(status))}
    _expect(outcomes == seen, row, f"outcomes {outcomes}, answers {seen}")


def _check_shares(rows: Sequence[Row]) -> None:
    bare, *others = rows
    share = bare.tally.refused_share()
    _expect(share > 0, bare, "no 429, so nothing was shown")
    for row in others:
        found = row.tally.refused_share()
        _expect(found < share, row, f"{found:.2%} of 429s, where the bare SDK met {share:.2%}")


def _expect(holds: bool, row: Row, found: str) -> None:
    if not holds:
        raise InvariantBrokenError(
            f"{row.provider}, {row.way}: found {found}; expected otherwise, please report it."
        )
