"""Reads the token usage of an answer (design 03, *Quotas*)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from forebay.contracts.outcomes import TokenUsage
from forebay.workers.providers.registry import GENERIC, PreparedProfile

MOST_TOKENS: Final = 100_000_000
"""Largest count of tokens; a larger one is ignored, as its debt would stop a fleet.
Its whole usage is then passed over, so that the estimate stands."""

LONGEST_USAGE: Final = 65_536
"""A longer ``usage`` object is not found within a document that is too long to be parsed."""

_BEGINS = re.compile(rb'"usage(?:Metadata)?"\s*:\s*(?=\{)')
_MOST_LOOKED_AT = 64


class Counts(NamedTuple):
    """The counts of a ``usage``, each None where it is missing."""

    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def are_absurd(self) -> bool:
        """Whether the counts are too large to be real."""
        return any(count is not None and count > MOST_TOKENS for count in self)


NO_COUNTS: Final = Counts()


def token_usage(reported: Any, profile: PreparedProfile = GENERIC) -> TokenUsage | None:
    """Return the counts of a ``usage``, a JSON object or an SDK's model of one; None without any.

    Knows the names of every profile. What is no count is as if not given; with a count above
    `MOST_TOKENS` nothing is.
    """
    if reported is None or isinstance(reported, TokenUsage):
        return reported
    return usage_of(counts_of(reported, profile))


def usage_of(counts: Counts) -> TokenUsage | None:
    """Return the usage that counts are, None without any or with an absurd one."""
    if counts == NO_COUNTS or counts.are_absurd:
        return None
    return TokenUsage(
        input_tokens=counts.input_tokens or 0, output_tokens=counts.output_tokens or 0
    )


def counts_in(document: Mapping[str, Any], profile: PreparedProfile = GENERIC) -> Counts:
    """Return the counts of a document or a stream's event, from the first place with any."""
    for place in profile.usage.places:
        found = _at(document, place)
        if isinstance(found, Mapping):
            counts = counts_of(found, profile)
            if counts != NO_COUNTS:
                return counts
    return NO_COUNTS


def counts_of(reported: Any, profile: PreparedProfile = GENERIC) -> Counts:
    """Return the counts of a ``usage``, a JSON object or an SDK's model of one."""
    facts = profile.usage
    return Counts(
        _sum(reported, facts.inputs, facts.more_inputs, facts.free_inputs),
        _sum(reported, facts.outputs, facts.more_outputs, ()),
    )


def counts_within(text: bytes, profile: PreparedProfile = GENERIC) -> Counts:
    """Return the counts of the last ``usage`` in a part of a JSON document.

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
        counts = counts_of(usage, profile)
        found = counts if counts != NO_COUNTS else found
    return found


def _sum(
    reported: Any, names: Iterable[str], more: Iterable[str], free: Iterable[str]
) -> int | None:
    for name in names:
        count = _count(reported, name)
        if count is not None:
            break
    else:
        return None
    for name in more:
        count += _count(reported, name) or 0
    for name in free:
        count -= _count(reported, name) or 0
    return max(0, count)


def _count(reported: Any, path: str) -> int | None:
    # The common case first: this is looked at in each answer.
    value = reported.get(path) if type(reported) is dict else _at(reported, path)
    if value is None and "." in path:
        value = _at(reported, path)
    if type(value) is float and value.is_integer():  # as Cohere writes them
        value = int(value)
    return value if type(value) is int and value >= 0 else None


def _at(reported: Any, path: str) -> Any:
    """Return the value at a dotted path of an object or an SDK's model, None if none."""
    for name in path.split(".") if path else ():
        if isinstance(reported, Mapping):
            reported = reported.get(name)
        else:
            reported = getattr(reported, name, None)
    return reported
