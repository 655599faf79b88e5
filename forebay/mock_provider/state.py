"""The mock provider's state: serves and refuses requests by the present truth.

No HTTP and no sleeping here, and time comes from a clock that can be replaced. One event loop owns
a state; nothing in it awaits, so each method is one step to everybody else on the loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from forebay.mock_provider.budget import BudgetLeft, BudgetName, Budgets
from forebay.mock_provider.draws import ServiceDraws
from forebay.mock_provider.log import ProviderLog, RequestRecord, TruthRecord
from forebay.mock_provider.truth import ProviderTruth

REFUSED = 429
CLIENT_LEFT = 499
"""The status in the log of a request whose client was gone before the answer was complete."""
FAILED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller of a request, as the log keeps it."""

    path: str
    arrived_at: float
    model: str = ""
    user: str | None = None
    tag: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that was turned away at once; it took nothing from any budget.

    Attributes:
        status: 429, or what the truth names for refusals that no limit explains.
        refused_by: the limit that was reached; "chance" for the truth's ``refusal_rate``.
        message: the sentence for the client; it does not give the concurrency limit away.
        retry_after_seconds: how long to wait; None to name no time, infinite for "never".
    """

    refused_by: Literal["concurrency", "chance"] | BudgetName
    message: str
    retry_after_seconds: float | None
    status: int = REFUSED


@dataclass(slots=True, kw_only=True)
class Counters:
    """Counters since the start; each finished model request counts in one outcome.

    Attributes:
        in_flight: requests in service now.
        max_in_flight: the most there were at once.
        ok: answered.
        refused: turned away at once, with 429 or the truth's ``refusal_status``.
        errors: 500, drawn from ``error_rate``.
        abandoned: the client left before the answer was complete.
        invalid: a wrong body or key.
    """

    in_flight: int = 0
    max_in_flight: int = 0
    ok: int = 0
    refused: int = 0
    errors: int = 0
    abandoned: int = 0
    invalid: int = 0

    def count(self, status: int, *, is_refusal: bool) -> None:
        """Count one request that is over; a refusal may have another status than 429."""
        if status < 400:  # noqa: PLR2004 - HTTP
            self.ok += 1
        elif is_refusal or status == REFUSED:
            self.refused += 1
        elif status == CLIENT_LEFT:
            self.abandoned += 1
        elif status >= FAILED:
            self.errors += 1
        else:
            self.invalid += 1


class Service:
    """One admitted request: it holds a slot until it is finished, or its block is left.

    Attributes:
        latency_seconds: how long the answer takes.
        fails: whether it ends with status 500.
    """

    __slots__ = ("_finish", "_open", "fails", "latency_seconds")

    def __init__(
        self, finish: Callable[[int], None], *, latency_seconds: float, fails: bool
    ) -> None:
        self._finish = finish
        self._open = True
        self.latency_seconds = latency_seconds
        self.fails = fails

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish(CLIENT_LEFT)

    def finish(self, status: int) -> None:
        """Free the slot and log the request; a second call changes nothing.

        Called before the last byte is sent, as the next request may follow the answer at once.
        """
        if self._open:
            self._open = False
            self._finish(status)


class ProviderState:
    """The hidden truth, the requests in service, the budgets, the counters and the log.

    Attributes:
        truth: the truth in force at the last request or snapshot, without its schedule.
        seed: makes answers, latencies and errors the same in each run.
        counters: what happened so far.
        log: what was seen.
        draws: what happens by chance.
        started_at_unix: wall clock of the start, to join the log with other records.
    """

    def __init__(
        self,
        truth: ProviderTruth,
        *,
        seed: int = 0,
        log: ProviderLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._started = clock()
        self._first_request_at: float | None = None
        self._steps = list(truth.schedule)
        self._budgets = Budgets()
        self.draws = ServiceDraws(seed)
        self.truth = truth.merged({})
        self.seed = seed
        self.counters = Counters()
        self.log = log if log is not None else ProviderLog()
        self.started_at_unix = time.time()
        self._budgets.fit(self.truth, 0.0)
        self.log.append(TruthRecord(at=0.0, source="start", changes=truth.model_dump(mode="json")))

    def elapsed_seconds(self) -> float:
        """Return seconds since the start, the time of everything in the log."""
        return self._clock() - self._started

    def settle(self) -> float:
        """Bring truth and budgets up to now; return now.

        Steps count from the first request and stand in the log at their planned moment. No timer
        is needed: nobody can tell when, between two requests, a step was taken.
        """
        now = self.elapsed_seconds()
        while self._steps and self._first_request_at is not None:
            due = self._first_request_at + self._steps[0].at_seconds
            if due > now:
                break
            self._become(self._steps.pop(0).changes, at=due, source="schedule")
        self._budgets.settle(now)
        return now

    def change_truth(self, changes: Mapping[str, Any]) -> ProviderTruth:
        """Change the hidden truth from now on; steps of the schedule still to come stay.

        Raises:
            ConfigurationError: an unknown field or a wrong value; nothing was changed.
        """
        self._become(changes, at=self.settle(), source="live")
        return self.truth

    def admit(self, caller: Caller, *, tokens: int, digest: str) -> Service | Refusal:
        """Give a request a slot and charge the budgets, or refuse it and log that.

        Args:
            caller: who asks.
            tokens: what it will use of ``tokens_per_minute``: prompt and completion together.
            digest: stands for the request's content, see :class:`ServiceDraws`.
        """
        if self._first_request_at is None:
            self._first_request_at = caller.arrived_at
        self.settle()
        refusal = self._refuse_or_charge(tokens)
        if refusal is not None:
            self.note(caller, refusal.status, refused_by=refusal.refused_by)
            return refusal
        counters = self.counters
        others, limit = counters.in_flight, self.truth.concurrency
        counters.in_flight += 1
        counters.max_in_flight = max(counters.max_in_flight, counters.in_flight)

        def finish(status: int) -> None:
            counters.in_flight -= 1
            self.note(
                caller, status, in_flight=others, concurrency_limit=limit, total_tokens=tokens
            )

        latency_seconds, fails = self.draws.draw(self.truth, digest)
        return Service(finish, latency_seconds=latency_seconds, fails=fails)

    def note(
        self,
        caller: Caller,
        status: int,
        *,
        in_flight: int | None = None,
        concurrency_limit: int | None = None,
        refused_by: str | None = None,
        total_tokens: int = 0,
    ) -> None:
        """Count and log a request that is over.

        Args:
            caller: who asked.
            status: the HTTP status.
            in_flight: others in service when it was admitted; None for "as now", with the limit.
            concurrency_limit: the limit when it was admitted.
            refused_by: the limit that was reached.
            total_tokens: what it used.
        """
        self.counters.count(status, is_refusal=refused_by is not None)
        if in_flight is None:
            in_flight, concurrency_limit = self.counters.in_flight, self.truth.concurrency
        self.log.append(
            RequestRecord(
                arrived_at=caller.arrived_at,
                finished_at=self.elapsed_seconds(),
                path=caller.path,
                model=caller.model,
                status=status,
                refused_by=refused_by,
                in_flight_on_arrival=in_flight,
                concurrency_limit=concurrency_limit,
                total_tokens=total_tokens,
                user=caller.user,
                tag=caller.tag,
                digest=caller.digest,
            )
        )

    def budgets_left(self) -> list[BudgetLeft]:
        """Return the present states of the budgets for an answer's headers."""
        self.settle()
        return self._budgets.left()

    def _refuse_or_charge(self, tokens: int) -> Refusal | None:
        if self.draws.refuses(self.truth):
            return Refusal(
                status=self.truth.refusal_status,
                refused_by="chance",
                message="The server is overloaded; try again later.",
                retry_after_seconds=self.truth.retry_after_seconds,
            )
        limit = self.truth.concurrency
        if limit is not None and self.counters.in_flight >= limit:
            return Refusal(
                refused_by="concurrency",
                message="Too many requests at once; send fewer in parallel.",
                retry_after_seconds=self.truth.retry_after_seconds,
            )
        short = self._budgets.charge(tokens)
        if short is None:
            return None
        name, bucket, seconds = short
        fault = "Rate limit reached" if math.isfinite(seconds) else "Request too large"
        asked = f", requested {tokens}" if name == "tokens_per_minute" else ""
        return Refusal(
            refused_by=name,
            message=f"{fault} for {name}: limit {bucket.per_minute}{asked}.",
            retry_after_seconds=seconds,
        )

    def _become(
        self, changes: Mapping[str, Any], *, at: float, source: Literal["schedule", "live"]
    ) -> None:
        self.truth = self.truth.merged(changes)
        self._budgets.fit(self.truth, at)
        changed = self.truth.model_dump(mode="json", include=set(changes))
        self.log.append(TruthRecord(at=at, source=source, changes=changed))
