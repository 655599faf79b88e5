"""The rows, by name."""

from __future__ import annotations

from typing import Final

from bench.simulate.rows import fleets, limits, moves, quotas

ROWS: Final = {row.name: row for row in (*limits.ROWS, *moves.ROWS, *quotas.ROWS, *fleets.ROWS)}
