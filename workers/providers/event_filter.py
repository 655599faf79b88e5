"""Filters a stream for the parts that may hold usage, an error or the end.

Almost every part of a stream is content alone, so a search is all that it may cost.
"""

from __future__ import annotations

import re
from typing import Final

# A usage or error that is not null: OpenAI puts "usage":null into every chunk but the last. A quote
# within the model's text is escaped, so no text can look like one of these keys.
WORTH_PARSING: Final = re.compile(
    rb'"(?:usage|usageMetadata|error|details|x_groq|[A-Za-z]+Exception)"\s*:\s*[^n\s]'
    rb'|"(?:object|type|event_type)"\s*:'
    rb'\s*"(?:error|message_stop|message-end|stream-end|response\.[a-z]+)"'
    rb'|"prompt_eval_count"\s*:\s*[0-9]'
    rb'|"finish_reason"\s*:\s*"(?:error|ERROR|TIMEOUT|insufficient_system_resource)'
)
"""Matches documents that are parsed."""

_WORDS: Final = (
    *b"error [DONE] message_stop response.completed response.incomplete usageMetadata".split(),
    *b'prompt_eval_count "details" xception -end finish_reason":"'.split(),
    b'finish_reason": "',
)
_USAGE: Final = re.compile(rb'"usage"\s*:\s*[^n\s]')


def is_worth_parsing(lines: bytes) -> bool:
    """Whether lines of a stream may hold usage, an error or the end."""
    for word in _WORDS:
        if word in lines:
            return True
    return b'"usage"' in lines and _USAGE.search(lines) is not None


SIGNS_OF_ERROR: Final = (b"rror", b"ERROR", b"TIMEOUT", b"insufficient_", b"xception", b".failed")
"""A parsed document is searched for an error only if one of these is in its text."""
