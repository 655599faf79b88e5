"""What one evaluation may take, in the process that evaluates (ADR 0013); imports nothing."""

from __future__ import annotations

from typing import Final

CPU_SECONDS: Final = 0.7
"""CPU time of one evaluation; with a new process in place of the one it cost, within a second."""

DOCUMENT_CPU_SECONDS: Final = 10.0
"""CPU time of reading a workflow file; the YAML parser, in Python, reads some 100 kB a second."""

MEMORY_BYTES: Final = 512 * 2**20
"""Address space of an evaluating process."""

WALL_SECONDS: Final = 60.0
"""After which a process that says nothing is ended; on a busy machine CPU time takes its while."""

MOST_REQUEST_BYTES: Final = 32 * 2**20
"""Of what is handed to an evaluating process at once."""

MOST_REPLY_BYTES: Final = 64 * 2**20

MOST_RENDERED_CHARACTERS: Final = 4 * 2**20
"""Of the text that a template makes for one record."""

MOST_DOCUMENT_VALUES: Final = 100_000
"""Values of a workflow file, those behind an alias counted as often as it is used."""
