"""Ctrl-C while a command still imports modules ends it with one line and code 130."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from forebay.cli import COMMANDS

TRAPPED = """
import os, signal, sys
from forebay.start import main

class Trap:
    def find_spec(self, name, path=None, target=None):
        if name == trapped:
            os.kill(os.getpid(), signal.SIGINT)

trapped = sys.argv.pop(1)
sys.meta_path.insert(0, Trap())
main()
print("was not interrupted")
"""
FIRST, LATER = "click", "forebay.logs"  # imported before any command's module is looked for
OF_THE_DEMO = ("structlog", "pydantic", "matplotlib", "forebay.runtime")


def interrupted(trapped: str, *arguments: str, folder: Path) -> tuple[int, str, str]:
    """Run a command line, interrupt it as it begins to import a module, return how it ended."""
    command = [sys.executable, "-c", TRAPPED, trapped, *arguments]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("trapped", [FIRST, LATER, *OF_THE_DEMO])
def test_a_demo_that_is_interrupted_at_its_start_ends_with_one_line(
    trapped: str, tmp_path: Path
) -> None:
    ended = interrupted(trapped, "demo", folder=tmp_path)
    assert ended == (130, "", "stopped by SIGINT\n")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_command_that_is_interrupted_at_its_start_ends_with_one_line(
    command: str, tmp_path: Path
) -> None:
    module = COMMANDS[command].partition(":")[0]
    ended = interrupted(module, command, folder=tmp_path)
    assert ended == (130, "", "stopped by SIGINT\n")
