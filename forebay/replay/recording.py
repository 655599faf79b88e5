"""Reads attempts from event files (JSON Lines), as the sink of `forebay.sinks` writes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind

_KINDS: Final = frozenset(
    {"request_wait_started", "request_lease_acquired", "request_lease_released"}
)


@dataclass(slots=True, kw_only=True)
class RecordedAttempt:
    """One attempt at a provider; times in seconds of the shard's clock.

    Attributes:
        attempt_id: its id.
        domain: whose window admitted it.
        group: the request group that asked.
        weight: of that group, where the event tells it.
        asked_at: when it began to wait.
        granted_at: when it got its lease; None where the file tells of none.
        ended_at: when it gave the lease back; None likewise.
        outcome: how it ended.
        member: the process that made it.
        limit: the window when it was granted.
        effective_max: the bound of the window then.
    """

    attempt_id: str
    domain: RequestDomain
    group: str
    weight: float
    asked_at: float
    granted_at: float | None = None
    ended_at: float | None = None
    outcome: str = ""
    member: str = ""
    limit: int = 0
    effective_max: int = 0

    @property
    def is_refused(self) -> bool:
        """Whether the provider answered it with a rate limit."""
        return self.outcome == RequestOutcomeKind.RATE_LIMITED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The recorded attempts of one provider/model.

    Attributes:
        provider_model: which.
        attempts: those that were granted and ended, in order of asking.
        unfinished: how many the files tell only a part of; they are left out.
        others: attempts at other provider/models in the same files.
    """

    provider_model: ProviderModelKey
    attempts: Sequence[RecordedAttempt]
    unfinished: int
    others: Mapping[ProviderModelKey, int] = field(default_factory=dict)

    @property
    def cap(self) -> int:
        """The largest bound that a window had."""
        return max(attempt.effective_max for attempt in self.attempts)

    @property
    def served_at_once(self) -> int:
        """Most calls that were under way at once when a call began that was not refused."""
        changes = [
            change
            for attempt in self.attempts
            if not attempt.is_refused and attempt.granted_at is not None
            for change in ((attempt.granted_at, 1), (attempt.ended_at or attempt.granted_at, -1))
        ]
        most = running = 0
        for _at, step in sorted(changes):
            running += step
            most = max(most, running)
        return most


def read_recording(paths: Sequence[Path], wanted: ProviderModelKey | None) -> Recording:
    """Return the attempts of one provider/model.

    Args:
        paths: event files, of one process each.
        wanted: which provider/model; None takes the one with most attempts.

    Raises:
        ConfigurationError: a file holds no events of attempts, or none of that provider/model.
    """
    found: dict[ProviderModelKey, dict[str, RecordedAttempt]] = {}
    for number, path in enumerate(paths):
        for event in _events(path):
            key = _key_of(event)
            if key is not None:
                _note(found.setdefault(key, {}), event, f"process {number}")
    counts = Counter({key: len(attempts) for key, attempts in found.items()})
    chosen = wanted or next((key for key, _count in counts.most_common(1)), None)
    names = ", ".join(map(str, counts)) or "none"
    whole = [
        attempt
        for attempt in found.get(chosen, {}).values()  # type: ignore[arg-type]
        if attempt.granted_at is not None and attempt.ended_at is not None
    ]
    if chosen is None or not whole:
        raise ConfigurationError(
            f"{', '.join(map(str, paths))}: expected events of attempts from their wait to their"
            f" release{f' at {wanted}' if wanted else ''}; the provider/models found are: {names}."
            " Record them with a JSON Lines sink (docs/events.md)."
        )
    return Recording(
        provider_model=chosen,
        attempts=sorted(whole, key=lambda attempt: attempt.asked_at),
        unfinished=len(found[chosen]) - len(whole),
        others={key: count for key, count in counts.items() if key != chosen},
    )


def _events(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the events of a file that replaying needs; a last line that was cut off is none."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
        except ValueError:
            if number == len(lines):
                return
            raise ConfigurationError(
                f"{path}, line {number}: expected a JSON object, as the JSON Lines sink writes;"
                f" found {line[:60]!r}."
            ) from None
        if isinstance(event, dict) and event.get("event_kind") in _KINDS:
            yield event


def _key_of(event: Mapping[str, Any]) -> ProviderModelKey | None:
    resource = event.get("request_resource_key")
    if not isinstance(resource, dict):
        return None
    return ProviderModelKey(
        provider_name=resource.get("provider_name", ""), model_id=resource.get("model_id", "")
    )


def _note(attempts: dict[str, RecordedAttempt], event: Mapping[str, Any], process: str) -> None:
    name, at = str(event.get("request_attempt_id")), float(event["captured_at"])
    diagnostics = event.get("diagnostics") or {}
    if event["event_kind"] == "request_wait_started":
        resource = event["request_resource_key"]
        attempts[name] = RecordedAttempt(
            attempt_id=name,
            domain=RequestDomain(resource.get("domain", "chat")),
            group=str(event.get("request_group_key") or "(none named)"),
            weight=float(diagnostics.get("weight", 1.0)),
            asked_at=at,
            member=process,
        )
        return
    attempt = attempts.get(name)
    if attempt is None:
        return
    if event["event_kind"] == "request_lease_acquired":
        seen = event.get("snapshot") or {}
        attempt.granted_at = max(at, attempt.asked_at)
        attempt.limit = int(seen.get("limit_at_admission", 0))
        attempt.effective_max = int(seen.get("effective_max", 0))
        attempt.member = str(diagnostics.get("member_id", process))
    elif attempt.granted_at is not None:
        attempt.ended_at = max(at, attempt.granted_at)
        attempt.outcome = str(event.get("reason_or_outcome", ""))


def groups_of(attempts: Iterable[RecordedAttempt]) -> dict[str, float]:
    """Return each group with the last weight that its attempts told."""
    return {attempt.group: attempt.weight for attempt in attempts}
