"""The mock provider's log: caller, time and result of requests; no prompt, no completion."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog

from forebay.contracts.errors import ConfigurationError

KEPT_RECORDS = 200_000

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One model request that is over. Times are seconds since the provider started.

    Attributes:
        arrived_at: when its headers were there.
        finished_at: when its slot was free again, or it was refused.
        path: the path of its URL.
        model: the model it asked for; "" when its body could not be understood.
        status: the HTTP status; 499 when the client left before the answer was complete.
        refused_by: the limit that refused it, else None.
        in_flight_on_arrival: other requests in service when it was admitted or refused.
        concurrency_limit: the hidden limit at that moment; None when there is none.
        total_tokens: prompt and completion tokens; 0 unless it was admitted.
        user: the ``user`` field of the body, if any.
        tag: the ``x-forebay-tag`` header, if any.
        digest: stands for what it asked; "" for a body that could not be understood.
    """

    kind: Literal["request"] = "request"
    arrived_at: float
    finished_at: float
    path: str
    model: str
    status: int
    refused_by: str | None = None
    in_flight_on_arrival: int
    concurrency_limit: int | None
    total_tokens: int = 0
    user: str | None = None
    tag: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthRecord:
    """One change of the hidden truth; the first is the whole truth at the start.

    Attributes:
        at: seconds since the provider started; of a scheduled step, the planned moment.
        source: what changed it.
        changes: the fields with their new values.
    """

    kind: Literal["truth"] = "truth"
    at: float
    source: Literal["start", "schedule", "live"]
    changes: Mapping[str, Any]


LogRecord = RequestRecord | TruthRecord


class ProviderLog:
    """The last records in memory and, when asked for, all of them in a JSON Lines file.

    Each record has an index, counted from 0 and never reused, so that a reader can ask for what
    is new. When the file cannot be written any more, the provider says so once and goes on.
    """

    def __init__(self, *, path: Path | None = None, kept: int = KEPT_RECORDS) -> None:
        self._records: deque[LogRecord] = deque(maxlen=kept)
        self._next_index = 0
        self._file: TextIO | None = None
        self._path = path
        if path is not None:
            try:
                # Line by line, so that the file is complete even after a kill.
                self._file = path.open("w", encoding="utf-8", buffering=1)
            except OSError as exc:
                raise ConfigurationError(
                    f"log file {path}: {exc.strerror or exc}; give a path that can be written"
                ) from exc

    def append(self, record: LogRecord) -> None:
        """Keep a record, and write it to the file if there is one."""
        index = self._next_index
        self._next_index += 1
        self._records.append(record)
        if self._file is not None:
            try:
                self._file.write(json.dumps({"index": index, **asdict(record)}) + "\n")
            except OSError as exc:
                _logger.warning("mock_provider_log_ended", path=str(self._path), reason=str(exc))
                self.close()

    def since(self, index: int = 0) -> Iterator[tuple[int, LogRecord]]:
        """Yield the kept records with this index or a later one, oldest first."""
        first_kept = self._next_index - len(self._records)
        start = max(0, index - first_kept)
        kept = itertools.islice(self._records, start, None)
        yield from enumerate(kept, start=first_kept + start)

    def close(self) -> None:
        """Close the file; records are kept in memory on and on."""
        if self._file is not None:
            file, self._file = self._file, None
            # What a full disk did not take was reported when it was written.
            with contextlib.suppress(OSError):
                file.close()
