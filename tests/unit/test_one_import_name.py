"""The guards that keep a source folder from being imported by its bare name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "line",
    [
        "import contracts",
        "import coordinator.scripts",
        "from lua import lib",
        "from workers.executor import ModelRequest",
    ],
)
@pytest.mark.parametrize("place", ["forebay", "coordinator", "tests/unit", "bench", "examples"])
def test_the_linter_refuses_a_bare_name(line: str, place: str) -> None:
    options = ("--no-cache", "--select", "TID251", "--stdin-filename", f"{place}/new.py", "-")
    ran = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *options],
        cwd=REPO,
        input=line + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert "a bare name imports a second copy, or a user's own package" in ran.stdout


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("import forebay.contracts.errors", 0),
        ("import contracts.errors", 1),
        ("__import__('lua')", 1),
    ],
)
def test_a_test_session_that_imported_a_bare_name_fails(
    line: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "test_one.py").write_text(f"def test_one():\n    {line}\n")
    own = ("-c", str(REPO / "pyproject.toml"), "--rootdir", str(REPO), "-p", "tests.conftest")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *own, "-p", "no:cacheprovider", str(tmp_path)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout or code == 0
    assert ("_no_bare_names" in ran.stdout) is (code == 1)
