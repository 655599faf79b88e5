"""What the body of an answer says besides its content: tokens used, and what went wrong.

Only counts and short identifiers come out of here, never text: it could quote a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from forebay.contracts.outcomes import TokenUsage
from forebay.workers.providers.answer_decoding import decoder_of
from forebay.workers.providers.token_usage import (
    LONGEST_USAGE,
    NO_COUNTS,
    Counts,
    counts_of,
    counts_within,
    usage_of,
)

BILLING_CODES: Final = frozenset(
    {
        "access_terminated",
        "account_deactivated",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_too_low",
        "insufficient_balance",
        "insufficient_quota",
    }
)
"""Error codes of an exhausted account: waiting does not help, so they are no overload."""

OVERLOAD_CODES: Final = frozenset(
    {
        "429",
        "503",
        "529",
        "RESOURCE_EXHAUSTED",
        "overloaded_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "slow_down",
    }
)
"""Error codes that mean overload even in an answer with a good status, as within a stream."""

BUDGET_CODE: Final = re.compile(r"quota|daily|monthly|per_day|per_month", re.IGNORECASE)
"""Parts of an error code that name a budget of requests or tokens, such as a daily one."""

UNNAMED_ERROR: Final = "unnamed_error"
"""Error code of an error inside an answer with a good status that gave itself no code."""

ANSWER_TOO_LONG: Final = "answer_too_long"
"""Error code of an answer that is longer than its caller takes: the next one would be, too."""

MOST_PARSED_BYTES: Final = 1_048_576
"""A longer JSON body, or line of a stream, is not parsed."""
MOST_INFLATED_BYTES: Final = 16 * MOST_PARSED_BYTES
"""A compressed body is read up to here: a few bytes can stand for gigabytes."""

_LONGEST_ERROR_BODY = 65_536
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_HTTP_STATUSES = range(100, 600)
# A usage or error that is not null: OpenAI puts "usage":null into every chunk but the last. A quote
# within the model's text is escaped, so no text can look like one of these keys.
_TELLING = re.compile(
    rb'"(?:usage|error)"\s*:\s*[^n\s]|"type"\s*:\s*"(?:error|message_stop|response\.completed)"'
)
_LAST_DATA = b"[DONE]"
_LAST_TYPES = ("message_stop", "response.completed")
_TELLING_WORDS = (b'"usage"', b"error", _LAST_DATA, b"message_stop", b"response.completed")


def error_code_of(body: bytes) -> str | None:
    """Return the machine-readable code of a provider's error body, or None.

    As `error_code_in`; a body above 64 kB has none.
    """
    if len(body) > _LONGEST_ERROR_BODY:
        return None
    try:
        return error_code_in(json.loads(body))
    except (ValueError, RecursionError):
        return None


def error_code_in(document: Any) -> str | None:
    """Return the machine-readable code of an error document, or None.

    Reads ``error.code``, ``error.type`` and ``error.status``, or the same without ``error``; a
    billing code first, a number only where nothing else is given. Only a short identifier is
    returned: free text could quote the prompt.
    """
    if isinstance(document, list) and len(document) == 1:  # Google wraps its errors so
        document = document[0]
    fault = document.get("error", document) if isinstance(document, Mapping) else None
    if not isinstance(fault, Mapping):
        return None
    named = [fault.get(name) for name in ("code", "type", "status")]
    codes = [code for code in named if isinstance(code, str) and _CODE.fullmatch(code)]
    codes += [str(code) for code in named if type(code) is int and code in _HTTP_STATUSES]
    return next((code for code in codes if code in BILLING_CODES), codes[0] if codes else None)


class AnswerReader:
    """Watches a body as it passes for its usage, its error and its end; keeps 1 MB of it at most.

    Of a longer JSON document, or line of a stream, only the usage is read, and that it is the last.

    Understands JSON and server-sent events, of OpenAI's two APIs and of Anthropic's, plain or in
    an encoding that `decoder_of` knows. Anything else, and anything broken, is given up quietly:
    nothing here raises.

    Args:
        content_type: the answer's header, "" if it has none (then JSON is tried).
        content_encoding: the answer's header, "" if it has none.
    """

    __slots__ = (
        "_counts",
        "_decoded",
        "_decoder",
        "_error_code",
        "_event",
        "_has_ended",
        "_is_compressed",
        "_is_counted",
        "_is_json",
        "_is_long",
        "_is_watching",
        "_kept",
    )

    def __init__(self, content_type: str, content_encoding: str) -> None:
        kind = content_type.partition(";")[0].strip().lower()
        self._is_json = not kind or kind.endswith("json")
        self._decoder = decoder_of(content_encoding)
        self._is_watching = self._decoder is not None and (
            self._is_json or kind == "text/event-stream"
        )
        self._is_compressed = content_encoding.strip().lower() not in {"", "identity"}
        self._decoded = 0
        self._kept = bytearray()
        self._is_long = False
        self._event = ""
        self._counts = NO_COUNTS
        self._is_counted = False
        self._error_code: str | None = None
        self._has_ended = False

    @property
    def has_ended(self) -> bool:
        """Whether the last event of a stream was seen: ``data: [DONE]``, or one of that type."""
        return self._has_ended

    @property
    def usage(self) -> TokenUsage | None:
        """What the answer said it used; None until it has said so."""
        self._read_json()
        return usage_of(self._counts) if self._is_counted else None

    @property
    def error_code(self) -> str | None:
        """The short code of the error in the body, `UNNAMED_ERROR` where it has none; else None."""
        self._read_json()
        return self._error_code

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the body, as they came over the wire; never raises."""
        if not self._is_watching:
            return
        try:
            for part in self._plain(chunk):
                if self._is_json:
                    self._keep(part)
                else:
                    self._take_events(part)
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

    def _read_json(self) -> None:
        if not self._is_json or not self._kept:
            return
        if self._is_long:
            self._read_long()
        elif self._note(bytes(self._kept)):
            # Kept until it is whole: asked for too early, it is no JSON yet.
            self._kept.clear()

    def _read_long(self) -> None:
        """Take the usage from what is kept of a long document, whose next part may hold another."""
        self._is_long = True
        self._count(counts_within(bytes(self._kept)))
        del self._kept[:-LONGEST_USAGE]

    def _take_events(self, part: bytes) -> None:
        cut = max(part.rfind(b"\n"), part.rfind(b"\r"))
        if cut < 0:
            self._keep(part)
            return
        lines = bytes(self._kept) + part[: cut + 1]
        self._kept = bytearray()
        if self._is_long:
            first, *others = lines.splitlines(keepends=True)
            self._count(counts_within(first))
            self._has_ended |= self._event in _LAST_TYPES
            self._event = ""
            lines = b"".join(others)
            self._is_long = False
        # Almost every part of a stream is content alone; these searches are all it costs.
        if self._event or any(word in lines for word in _TELLING_WORDS):
            self._read_lines(lines)
        self._keep(part[cut + 1 :])

    def _read_lines(self, lines: bytes) -> None:
        for line in lines.splitlines():
            if line.startswith(b"event:"):
                self._event = line[6:].strip().decode(errors="replace")
            elif line.startswith(b"data:"):
                if line[5:].strip() == _LAST_DATA:
                    self._has_ended = True
                elif self._event == "error" or _TELLING.search(line):
                    self._note(line[5:])
                self._event = ""

    def _note(self, text: bytes) -> bool:
        """Take what a JSON document tells; return whether it was one."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return False
        if isinstance(document, list) and len(document) == 1:
            document = document[0]
        if not isinstance(document, dict):
            return True
        kind = document.get("type")
        self._has_ended |= kind in _LAST_TYPES
        inner = document.get("response")  # OpenAI's responses API wraps its own so
        told = document if not isinstance(inner, dict) else inner
        if told.get("error") or kind == "error" or self._event == "error":
            source = told if told.get("error") else {**document, "type": None}
            self._error_code = error_code_in(source) or UNNAMED_ERROR
        start = document.get("message")
        if isinstance(start, dict):
            # Anthropic's message_start: the input, and an output that has only begun, so it is no
            # usage of the attempt before message_delta has told the output.
            self._counts = Counts(counts_of(start.get("usage")).input_tokens)
        self._count(counts_of(told.get("usage")))
        return True

    def _count(self, counts: Counts) -> None:
        """Take what a ``usage`` says; what it does not say of the input was said before."""
        if counts == NO_COUNTS:
            return
        if counts.input_tokens is None:
            counts = counts._replace(input_tokens=self._counts.input_tokens)
        self._counts = counts
        self._is_counted = True
