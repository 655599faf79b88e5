"""Sections of ``docs/reliability.md`` that a command writes, between two comments each. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from forebay.contracts.errors import ConfigurationError


def begin_mark(section: str) -> str:
    """Return the comment above a written section."""
    return f"<!-- made by: make reliability SECTION={section} -->"


def end_mark(section: str) -> str:
    """Return the comment below a written section."""
    return f"<!-- end of {section} -->"


def replace_section(text: str, section: str, body: str) -> str:
    """Return a document with other lines between the comments of a section.

    Args:
        text: the document.
        section: the section's name.
        body: Markdown; line breaks around it do not count.

    Raises:
        ConfigurationError: the document does not have both comments, in this order, once.
    """
    begin, end = begin_mark(section), end_mark(section)
    found = re.findall(f"{re.escape(begin)}.*?{re.escape(end)}", text, re.DOTALL)
    if len(found) != 1:
        raise ConfigurationError(
            f"the document has {len(found)} sections {section!r}, expected one; write {begin!r} and"
            f" {end!r} on lines of their own where the section belongs."
        )
    return text.replace(found[0], f"{begin}\n\n{body.strip()}\n\n{end}")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
