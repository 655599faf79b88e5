"""Reads token usage, errors and the end of an answer's body.

Only counts and short identifiers come out of here, never text: it could quote a prompt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from forebay.contracts.outcomes import TokenUsage
from forebay.workers.providers.answer_decoding import decoder_of
from forebay.workers.providers.event_filter import SIGNS_OF_ERROR, WORTH_PARSING, is_worth_parsing
from forebay.workers.providers.event_frames import FrameReader
from forebay.workers.providers.event_lines import EventLines
from forebay.workers.providers.faults import NO_FAULT, UNNAMED_ERROR, Fault, fault_in, has_error
from forebay.workers.providers.registry import GENERIC, PreparedProfile
from forebay.workers.providers.token_usage import (
    LONGEST_USAGE,
    NO_COUNTS,
    Counts,
    counts_in,
    counts_of,
    counts_within,
    usage_of,
)

ANSWER_TOO_LONG: Final = "answer_too_long"
"""Error code of an answer that is longer than its caller's bound; not retried."""

MOST_PARSED_BYTES: Final = 1_048_576
"""A longer JSON body, or line of a stream, is not parsed."""
MOST_INFLATED_BYTES: Final = 16 * MOST_PARSED_BYTES
"""A compressed body is read up to here: a few bytes can stand for gigabytes."""

_MOST_REFUSAL_BYTES: Final = 65_536
_FRAMES: Final = "application/vnd.amazon.eventstream"
_EVENTS: Final = "text/event-stream"
_LINES_OF_JSON: Final = ("ndjson", "jsonl", "jsonlines", "stream+json")
_LAST_DATA: Final = b"[DONE]"


class AnswerReader:
    """Watches a body as it passes for its usage, its error and its end; keeps 1 MB of it at most.

    Of a longer JSON document, or line of a stream, only the usage is read, and that it is the last.

    Understands JSON, server-sent events, lines of JSON and Amazon's frames, in the words of every
    profile, plain or in an encoding that `decoder_of` knows. Anything else, and anything broken, is
    given up quietly: nothing here raises.

    Args:
        content_type: the answer's header, "" if it has none (then JSON is tried).
        content_encoding: the answer's header, "" if it has none.
        profile: of the provider that answers.
        is_refusal: whether the answer's status says that the whole body is an error.
        clock: Unix time in seconds, for instants in an error.
    """

    __slots__ = (
        "_clock",
        "_counts",
        "_decoded",
        "_decoder",
        "_events",
        "_fault",
        "_frames",
        "_has_ended",
        "_is_compressed",
        "_is_counted",
        "_is_json",
        "_is_lines",
        "_is_long",
        "_is_refusal",
        "_is_watching",
        "_kept",
        "_profile",
    )

    def __init__(
        self,
        content_type: str,
        content_encoding: str,
        profile: PreparedProfile = GENERIC,
        *,
        is_refusal: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        kind = content_type.partition(";")[0].strip().lower()
        self._is_lines = kind.endswith(_LINES_OF_JSON)
        self._is_json = is_refusal or (not self._is_lines and (not kind or kind.endswith("json")))
        self._frames = FrameReader() if kind == _FRAMES and not is_refusal else None
        self._decoder = decoder_of(content_encoding)
        self._is_watching = self._decoder is not None and (
            self._is_json or self._is_lines or kind in {_EVENTS, _FRAMES}
        )
        self._is_compressed = content_encoding.strip().lower() not in {"", "identity"}
        self._profile = profile
        self._clock = clock
        self._is_refusal = is_refusal
        self._decoded = 0
        self._kept = bytearray()
        self._is_long = False
        self._events = EventLines()
        self._counts = NO_COUNTS
        self._is_counted = False
        self._fault: Fault | None = None
        self._has_ended = False

    @property
    def has_ended(self) -> bool:
        """Whether the last event of a stream was seen: ``data: [DONE]``, or one of that type."""
        self._read_last_events(b"")
        return self._has_ended

    @property
    def usage(self) -> TokenUsage | None:
        """The usage that the answer has reported; None before that."""
        self._read_kept()
        return usage_of(self._counts) if self._is_counted else None

    @property
    def fault(self) -> Fault:
        """The error in the body; `NO_FAULT` for none."""
        self._read_kept()
        if self._fault is None and self._is_refusal and self._kept:
            # No JSON: some gateways refuse in plain text.
            self._fault = self._fault_in_text(self._kept)
        return self._fault or NO_FAULT

    def _fault_in_text(self, text: bytes | bytearray) -> Fault:
        message = text[:_MOST_REFUSAL_BYTES].decode(errors="replace")
        return fault_in({"message": message}, self._profile, now=self._clock())

    @property
    def error_code(self) -> str | None:
        """The short code of the error in the body, `UNNAMED_ERROR` where it has none; else None."""
        return self.fault.code

    def feed(self, chunk: bytes) -> None:
        """Read the next raw bytes of the body; never raises."""
        if not self._is_watching:
            return
        try:
            for part in self._plain(chunk):
                if self._is_json:
                    self._keep(part)
                elif self._frames is not None:
                    self._take_frames(self._frames, part)
                else:
                    self._take_lines(part)
        except Exception:  # noqa: BLE001 - a watcher must not harm what it watches
            self._give_up()

    def _plain(self, chunk: bytes) -> Iterator[bytes]:
        assert self._decoder is not None  # noqa: S101 - for mypy; nothing is watched without one
        for part in self._decoder.decode(chunk):
            self._decoded += len(part)
            if self._is_compressed and self._decoded > MOST_INFLATED_BYTES:
                self._give_up()
            if not self._is_watching:
                return
            yield part

    def _give_up(self) -> None:
        self._is_watching = False
        self._kept.clear()

    def _keep(self, part: bytes) -> None:
        self._kept += part
        if len(self._kept) > MOST_PARSED_BYTES:
            self._read_long()

    def _read_kept(self) -> None:
        if self._is_lines:
            self._read_lines(self._kept)
        elif not self._is_json and self._frames is None:
            if not self._is_long:  # the last line of a stream may have no end
                self._read_last_events(bytes(self._kept))
        elif self._is_long:
            self._read_long()
        elif self._kept and self._note(bytes(self._kept)):
            # Kept until it is whole: asked for too early, it is no JSON yet.
            self._kept.clear()

    def _read_long(self) -> None:
        """Read the usage from the kept part of a long document."""
        self._is_long = True
        self._count(counts_within(bytes(self._kept), self._profile))
        del self._kept[:-LONGEST_USAGE]

    def _take_frames(self, reader: FrameReader, part: bytes) -> None:
        for frame in reader.frames(part):
            code = frame.exception
            document = frame.document()
            if code is not None:
                told = document if isinstance(document, dict) else {}
                self._fault = fault_in({**told, "code": code}, self._profile, now=self._clock())
            else:
                self._has_ended |= frame.headers.get(":event-type") in self._profile.streams.last
                self._note_document(document, may_fail=True)

    def _take_lines(self, part: bytes) -> None:
        # A carriage return at the end may be half of a line's end.
        cut = max(part.rfind(b"\n"), part.rfind(b"\r", 0, -1))
        if cut < 0:
            self._keep(part)
            return
        lines = bytes(self._kept) + part[: cut + 1]
        self._kept = bytearray()
        if self._is_long:
            first, *others = lines.splitlines(keepends=True)
            self._count(counts_within(first, self._profile))
            self._has_ended |= self._events.name in self._profile.streams.last
            self._events.end_event()
            lines = b"".join(others)
            self._is_long = False
        # Almost every part of a stream is content alone; these searches are all it costs.
        tells = is_worth_parsing(lines)
        if self._is_lines:
            self._read_lines(lines if tells else b"")
        elif tells or not self._events.is_left_closed_by(lines):
            for event in self._events.events(lines):
                self._take_event(*event)
        self._keep(part[cut + 1 :])

    def _read_last_events(self, rest: bytes) -> None:
        for event in self._events.last_events(rest):
            self._take_event(*event)

    def _read_lines(self, lines: bytes | bytearray) -> None:
        for line in lines.splitlines():
            if WORTH_PARSING.search(line):
                self._note(line)

    def _take_event(self, name: str, data: bytes) -> None:
        is_failed = name in self._profile.streams.failed
        if data == _LAST_DATA:
            self._has_ended = True
        elif not is_failed and not WORTH_PARSING.search(data):
            return
        elif not self._note(data, is_failed=is_failed) and is_failed:
            told = self._fault_in_text(data)  # some gateways break off in plain text
            self._fault = told if told.code else told._replace(code=UNNAMED_ERROR)

    def _note(self, text: bytes | bytearray, *, is_failed: bool = False) -> bool:
        """Read usage and error of a JSON document; return whether it was one."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return False
        is_failed |= self._is_refusal
        may_fail = is_failed or any(sign in text for sign in SIGNS_OF_ERROR)
        # Gemini streams a list unless it is asked for events.
        for one in document if isinstance(document, list) else [document]:
            self._note_document(one, may_fail=may_fail, is_failed=is_failed)
        return True

    def _note_document(self, document: Any, *, may_fail: bool, is_failed: bool = False) -> None:
        if not isinstance(document, dict):
            return
        profile = self._profile
        self._has_ended |= (
            document.get("type") in profile.streams.last
            or document.get("event_type") in profile.streams.last
            or document.get("done") is True
        )
        if is_failed or (may_fail and has_error(document, profile)):
            self._fault = fault_in(document, profile, now=self._clock())
            if self._fault.code is None and not self._is_refusal:
                self._fault = self._fault._replace(code=UNNAMED_ERROR)
        start = document.get("message")
        if isinstance(start, dict) and "usage" in start:
            # Anthropic's message_start: the input, and an output that has only begun, so it is no
            # usage of the attempt before message_delta has told the output.
            self._counts = Counts(counts_of(start.get("usage"), profile).input_tokens)
            return
        self._count(counts_in(document, profile))

    def _count(self, counts: Counts) -> None:
        """Read the counts of a ``usage``; missing input counts were in an earlier one."""
        if counts == NO_COUNTS:
            return
        if counts.input_tokens is None:
            counts = counts._replace(input_tokens=self._counts.input_tokens)
        self._counts = counts
        self._is_counted = True
