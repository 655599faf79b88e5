"""`tests/twice.py` tries a few failed tests once more, says so, and hides none that fails again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TWICE = Path(__file__).parents[1] / "twice.py"

UNSTEADY = """
import pathlib
def test_unsteady():
    mark = pathlib.Path("tried")
    was = mark.exists()
    mark.touch()
    assert was
"""
FAILING = "def test_failing():\n    raise ValueError\n"
MANY = "".join(f"def test_failing_{n}():\n    raise ValueError\n" for n in range(4))


@pytest.mark.parametrize(
    ("text", "code", "said", "unsaid"),
    [
        (UNSTEADY, 0, "only the second try passed:\n  test_it.py::test_unsteady", "nothing"),
        (FAILING, 1, "1 of the tests failed; once more, alone:", "only the second try"),
        (MANY, 1, "4 failed", "once more"),
    ],
)
def test_only_a_few_failures_are_tried_again(
    tmp_path: Path, text: str, code: int, said: str, unsaid: str
) -> None:
    (tmp_path / "test_it.py").write_text(text)
    command = [sys.executable, str(TWICE), "0", "."]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | alone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout
    assert said in run.stdout
    assert unsaid not in run.stdout
