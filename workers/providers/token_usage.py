"""The tokens that an answer says it used (spec 03, *Quotas*)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from forebay.contracts.outcomes import TokenUsage

MOST_TOKENS: Final = 100_000_000
"""A count above is no count: no call takes as many, and a debt of them would stop a fleet for days.
Its whole usage is then passed over, so that the estimate stands."""

LONGEST_USAGE: Final = 65_536
"""A longer ``usage`` object is not found within a document that is too long to be parsed."""

_BEGINS = re.compile(rb'"usage"\s*:\s*(?=\{)')
_MOST_LOOKED_AT = 64


class Counts(NamedTuple):
    """What a ``usage`` says: each count, None where it does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def are_absurd(self) -> bool:
        """Whether nobody can have used as many."""
        return any(count is not None and count > MOST_TOKENS for count in self)


NO_COUNTS: Final = Counts()


def token_usage(reported: Any) -> TokenUsage | None:
    """Return the counts of a ``usage``, a JSON object or an SDK's model of one; None without any.

    Knows ``prompt_tokens`` and ``completion_tokens`` (OpenAI) and ``input_tokens`` and
    ``output_tokens`` (OpenAI's responses, Anthropic). What is no count is as if not given; with a
    count above `MOST_TOKENS` nothing is.
    """
    if reported is None or isinstance(reported, TokenUsage):
        return reported
    return usage_of(counts_of(reported))


def usage_of(counts: Counts) -> TokenUsage | None:
    """Return the usage that counts are, None without any or with an absurd one."""
    if counts == NO_COUNTS or counts.are_absurd:
        return None
    return TokenUsage(
        input_tokens=counts.input_tokens or 0, output_tokens=counts.output_tokens or 0
    )


def counts_of(reported: Any) -> Counts:
    """Return what a ``usage`` says, a JSON object or an SDK's model of one."""
    input_tokens = _count(reported, "prompt_tokens", "input_tokens")
    # Anthropic counts what it writes to its cache apart, and bounds it like other input.
    cached = _count(reported, "cache_creation_input_tokens")
    if input_tokens is not None:
        input_tokens += cached or 0
    return Counts(input_tokens, _count(reported, "completion_tokens", "output_tokens"))


def counts_within(text: bytes) -> Counts:
    """Return what the last ``usage`` in a part of a JSON document says.

    A quote within a string is escaped, so no text in the document can look like the key.
    """
    found = NO_COUNTS
    ended = 0
    for at in [begun.end() for begun in _BEGINS.finditer(text)][-_MOST_LOOKED_AT:]:
        if at < ended:  # within the last one
            continue
        cut = text[at : at + LONGEST_USAGE].decode(errors="replace")
        try:
            usage, length = json.JSONDecoder().raw_decode(cut)
        except (ValueError, RecursionError):  # cut off
            continue
        ended = at + len(cut[:length].encode())
        counts = counts_of(usage)
        found = counts if counts != NO_COUNTS else found
    return found


def _count(reported: Any, *names: str) -> int | None:
    for name in names:
        if isinstance(reported, Mapping):
            value = reported.get(name)
        else:
            value = getattr(reported, name, None)
        if type(value) is int and value >= 0:
            return value
    return None
