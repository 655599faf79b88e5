"""Reads attempts from event files (JSON Lines), as the sink of `forebay.sinks` writes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.events import EventStream
from forebay.contracts.identity import ProviderModelKey, RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind

_KINDS: Final = frozenset(
    {"request_wait_started", "request_lease_acquired", "request_lease_released"}
)
TASKS_ARE_NOT_REPLAYED: Final = (
    "Events of task pools are not replayed, so a pool's weights and limits cannot be tried: a run"
    " submits tasks as earlier ones end, and no event tells which ones"
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
        is_asked: whether the files tell of its wait.
    """

    attempt_id: str
    domain: RequestDomain = RequestDomain.CHAT
    group: str = ""
    weight: float = 1.0
    asked_at: float = 0.0
    granted_at: float | None = None
    ended_at: float | None = None
    outcome: str = ""
    member: str = ""
    limit: int = 0
    effective_max: int = 0
    is_asked: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the files tell of its wait, its lease and its end, in whatever order."""
        return self.is_asked and self.granted_at is not None and self.ended_at is not None

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
        task_events: how many events of task pools the same files hold; no replay uses them.
    """

    provider_model: ProviderModelKey
    attempts: Sequence[RecordedAttempt]
    unfinished: int
    others: Mapping[ProviderModelKey, int] = field(default_factory=dict)
    task_events: int = 0

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
        ConfigurationError: a line is no event, or the files tell of no whole attempt there.
    """
    found: dict[ProviderModelKey, dict[str, RecordedAttempt]] = {}
    task_events = 0
    for process, path in enumerate(paths):
        for number, event in _events(path):
            task_events += event.get("stream") == EventStream.SCHEDULER.value
            if event.get("event_kind") in _KINDS:
                try:
                    _note(found, event, f"process {process}")
                except (ConfigurationError, LookupError, TypeError, ValueError) as error:
                    raise ConfigurationError(
                        f"{path}, line {number}: expected an event {event['event_kind']} as the"
                        f" JSON Lines sink writes it; {type(error).__name__}: {error}."
                    ) from error
    counts = Counter({key: len(attempts) for key, attempts in found.items()})
    chosen = wanted or next((key for key, _count in counts.most_common(1)), None)
    whole = [one for one in found.get(chosen, {}).values() if one.is_whole] if chosen else []
    if chosen is None or not whole:
        raise ConfigurationError(_nothing_found(paths, wanted, counts, task_events))
    for attempt in whole:  # the clocks of processes differ
        attempt.granted_at = max(attempt.granted_at or 0.0, attempt.asked_at)
        attempt.ended_at = max(attempt.ended_at or 0.0, attempt.granted_at)
    return Recording(
        provider_model=chosen,
        attempts=sorted(whole, key=lambda attempt: attempt.asked_at),
        unfinished=len(found[chosen]) - len(whole),
        others={key: count for key, count in counts.items() if key != chosen},
        task_events=task_events,
    )


def _nothing_found(
    paths: Sequence[Path],
    wanted: ProviderModelKey | None,
    counts: Mapping[ProviderModelKey, int],
    task_events: int,
) -> str:
    tasks = f" {TASKS_ARE_NOT_REPLAYED} ({task_events} are there)." if task_events else ""
    return (
        f"{', '.join(map(str, paths))}: expected events of attempts from their wait to their"
        f" release{f' at {wanted}' if wanted else ''}; the provider/models found are:"
        f" {', '.join(map(str, counts)) or 'none'}.{tasks} Record them with a JSON Lines sink"
        " (docs/events.md)."
    )


def _events(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield each event of a file with its line; a last line that was cut off is none."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                event = json.loads(line)
            except ValueError:
                if not line.endswith(b"\n"):
                    return
                event = None
            if not isinstance(event, dict):
                shown = line[:60].decode(errors="replace")
                raise ConfigurationError(
                    f"{path}, line {number}: expected a JSON object, as the JSON Lines sink writes;"
                    f" found {shown!r}."
                )
            yield number, event


def _note(
    found: dict[ProviderModelKey, dict[str, RecordedAttempt]],
    event: Mapping[str, Any],
    process: str,
) -> None:
    """Note one event of an attempt; its events may stand in any order."""
    resource, name = event["request_resource_key"], str(event["request_attempt_id"])
    key = ProviderModelKey(provider_name=resource["provider_name"], model_id=resource["model_id"])
    attempt = found.setdefault(key, {}).setdefault(name, RecordedAttempt(attempt_id=name))
    at, diagnostics = float(event["captured_at"]), event.get("diagnostics") or {}
    if event["event_kind"] == "request_wait_started":
        attempt.domain = RequestDomain(resource.get("domain", "chat"))
        attempt.group = str(event.get("request_group_key") or "(none named)")
        attempt.weight = float(diagnostics.get("weight", 1.0))
        attempt.asked_at, attempt.is_asked = at, True
        attempt.member = attempt.member or process
    elif event["event_kind"] == "request_lease_acquired":
        seen = event.get("snapshot") or {}
        attempt.granted_at = at
        attempt.limit = int(seen.get("limit_at_admission", 0))
        attempt.effective_max = int(seen.get("effective_max", 0))
        attempt.member = str(diagnostics.get("member_id", process))
    else:
        attempt.ended_at = at
        attempt.outcome = str(event.get("reason_or_outcome", ""))


def groups_of(attempts: Iterable[RecordedAttempt]) -> dict[str, float]:
    """Return each group with the weight of its last attempt."""
    return {attempt.group: attempt.weight for attempt in attempts}
