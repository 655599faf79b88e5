"""Replays recorded attempts through the production Lua on a simulated clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from forebay.contracts.identity import RequestGroupSpec, RequestResourceKey
from forebay.contracts.outcomes import RequestOutcomeKind, RequestReleaseOutcome
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from forebay.coordinator.keys import request_shard
from forebay.replay.recording import RecordedAttempt, Recording, groups_of
from forebay.simulation.member import SimulatedMember
from forebay.simulation.server import SimulatedServer
from forebay.simulation.timeline import SECOND_US, Timeline, to_us

SAMPLE_US: Final = SECOND_US // 2
_LONGEST_US: Final = 24 * 3600 * SECOND_US
_REFUSAL_SECONDS: Final = 0.1
"""Duration of a refusal for recordings without one."""
_REFUSED: Final = RequestReleaseOutcome(kind=RequestOutcomeKind.RATE_LIMITED)
_SUCCESS: Final = RequestReleaseOutcome(kind=RequestOutcomeKind.SUCCESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """Settings of a replay that differ from the recording.

    Attributes:
        cap: of the provider/model; None as recorded.
        weights: of groups; of others as recorded.
        rule: by which the window moves.
    """

    cap: int | None = None
    weights: Mapping[str, float] | None = None
    rule: Literal["steady", "aimd"] = "steady"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One call's wait.

    Attributes:
        group: the request group that asked.
        asked_at: seconds since the first call of the recording.
        seconds: until its lease; over all its tries, where it was refused.
        ended_at: seconds since the first call of the recording.
    """

    group: str
    asked_at: float
    seconds: float
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a recording or of its replay: waits, refusals and windows.

    Attributes:
        waits: of each call that was served, in order of asking.
        refusals: answers with a rate limit; of a replay the most that there can have been.
        windows: the window over time, in seconds since the first call.
        cap: of the provider/model.
    """

    waits: list[Wait]
    refusals: int
    windows: list[tuple[float, int]]
    cap: int


def what_happened(recording: Recording) -> Outcome:
    """Return the recording itself in the form of a replay."""
    begin = recording.attempts[0].asked_at
    served = [attempt for attempt in recording.attempts if not attempt.is_refused]
    return Outcome(
        waits=[
            Wait(
                group=attempt.group,
                asked_at=attempt.asked_at - begin,
                seconds=(attempt.granted_at or attempt.asked_at) - attempt.asked_at,
                ended_at=(attempt.ended_at or attempt.asked_at) - begin,
            )
            for attempt in served
        ],
        refusals=len(recording.attempts) - len(served),
        windows=sorted(
            ((attempt.granted_at or attempt.asked_at) - begin, attempt.limit)
            for attempt in recording.attempts
        ),
        cap=recording.cap,
    )


def replay(recording: Recording, settings: ReplaySettings, url: str) -> Outcome:
    """Replay the calls that were served, each when it was asked for and as long as it took.

    The provider's limit is not known. It is assumed to serve as many calls at once as the
    recording shows it to have served, and to refuse each call above: so the refusals are a bound. A
    call that was refused and the call that repeated it count as one.

    Args:
        recording: what happened.
        settings: what is set otherwise.
        url: of an embedded server, which is emptied.
    """
    timeline = Timeline()
    server = SimulatedServer(url, timeline)
    try:
        return _Replay(recording, settings, server, timeline).run()
    finally:
        server.close()


class _Replay:
    """One replay under way."""

    def __init__(
        self,
        recording: Recording,
        settings: ReplaySettings,
        server: SimulatedServer,
        timeline: Timeline,
    ) -> None:
        self._served = [attempt for attempt in recording.attempts if not attempt.is_refused]
        self._begin = recording.attempts[0].asked_at
        self._cap = settings.cap or recording.cap
        self._weights = {**groups_of(recording.attempts), **(settings.weights or {})}
        self._at_once = recording.served_at_once
        self._refusal_us = to_us(_refusal_seconds(recording))
        self._model = recording.provider_model
        self._keys = request_shard(self._model)
        self._domains = sorted({attempt.domain for attempt in self._served})
        self._server = server
        self._timeline = timeline
        tuning = RequestAdmissionTuningConfig(rule=settings.rule)
        self._config = RequestAdmissionConfig(tuning=tuning)
        self._members: dict[str, SimulatedMember] = {}
        self._running = 0
        self._refusals = 0
        self._waits: list[Wait] = []
        self._windows: list[tuple[float, int]] = []

    def run(self) -> Outcome:
        for attempt in self._served:
            at_us = to_us(attempt.asked_at - self._begin)
            self._timeline.at(at_us, self._ask, attempt, 0)
        self._timeline.every(SAMPLE_US, self._sample)
        until_us = 0
        while len(self._waits) < len(self._served) and until_us < _LONGEST_US:
            until_us += 10 * SECOND_US
            self._timeline.run(until_us)
        return Outcome(
            waits=sorted(self._waits, key=lambda wait: wait.asked_at),
            refusals=self._refusals,
            windows=self._windows,
            cap=self._cap,
        )

    def _ask(self, attempt: RecordedAttempt, tries: int) -> None:
        item = RequestAdmissionItem(
            resource=RequestResourceKey(provider_model=self._model, domain=attempt.domain),
            group=RequestGroupSpec(key=attempt.group, weight=self._weights[attempt.group]),
            attempt_id=f"{attempt.attempt_id}.{tries}",
        )
        member = self._member(attempt.member)
        member.acquire(item, lambda lease: self._call(member, attempt, lease, tries))

    def _call(
        self,
        member: SimulatedMember,
        attempt: RecordedAttempt,
        lease: RequestAdmissionLease,
        tries: int,
    ) -> None:
        if self._running >= self._at_once:
            self._refusals += 1

            def ask_again() -> None:
                member.release(lease, _REFUSED)
                self._ask(attempt, tries + 1)

            self._timeline.after(self._refusal_us, ask_again)
            return
        self._running += 1
        waited = self._now() - (attempt.asked_at - self._begin)
        took = (attempt.ended_at or 0.0) - (attempt.granted_at or 0.0)
        self._timeline.after(to_us(took), self._end, member, attempt, lease, waited)

    def _end(
        self,
        member: SimulatedMember,
        attempt: RecordedAttempt,
        lease: RequestAdmissionLease,
        waited: float,
    ) -> None:
        self._running -= 1
        member.release(lease, _SUCCESS)
        self._waits.append(
            Wait(
                group=attempt.group,
                asked_at=attempt.asked_at - self._begin,
                seconds=max(0.0, waited),
                ended_at=self._now(),
            )
        )

    def _member(self, name: str) -> SimulatedMember:
        if name not in self._members:
            member = SimulatedMember(self._server, self._timeline, self._keys, name)
            member.register(self._cap, self._config)
            self._members[name] = member
        return self._members[name]

    def _sample(self) -> None:
        windows = [self._server.window(self._keys, domain) for domain in self._domains]
        limit = sum(int(float(window.get("current_limit", 0))) for window in windows)
        self._windows.append((self._now(), limit))

    def _now(self) -> float:
        return self._timeline.now_us / 1e6


def _refusal_seconds(recording: Recording) -> float:
    took = [
        attempt.ended_at - attempt.granted_at
        for attempt in recording.attempts
        if attempt.is_refused and attempt.ended_at is not None and attempt.granted_at is not None
    ]
    return median(took) if took else _REFUSAL_SECONDS
