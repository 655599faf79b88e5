"""The written sections of ``docs/reliability.md``: each function measures and returns Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Section = Callable[[bool], str]
"""Measures, small if it is told True, and returns the section's Markdown."""

SECTIONS: Final[dict[str, Section]] = {}
"""By name, as the document has them. A new section is a function here, two comments there."""
