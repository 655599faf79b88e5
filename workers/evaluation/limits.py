"""Bounds of one evaluation in the evaluating process (ADR 0013); imports nothing."""

from __future__ import annotations

from typing import Final

CPU_SECONDS: Final = 0.7
"""CPU time of one evaluation; with a new process in place of the one it cost, within a second."""

DOCUMENT_CPU_SECONDS: Final = 10.0
"""CPU time of reading a workflow file; the YAML parser, in Python, reads some 100 kB a second."""

MEMORY_BYTES: Final = 512 * 2**20
"""Address space of an evaluating process."""

WALL_SECONDS: Final = 60.0
"""Time after which a silent process is ended; longer than the CPU time, for busy machines."""

MOST_REQUEST_BYTES: Final = 32 * 2**20
"""Largest request to an evaluating process, in bytes."""

MOST_REPLY_BYTES: Final = 64 * 2**20

MOST_RENDERED_CHARACTERS: Final = 4 * 2**20
"""Longest text that a template may make for one record."""

MOST_DOCUMENT_VALUES: Final = 100_000
"""Values of a workflow file, those behind an alias counted as often as it is used."""
