"""README's Python, run as it stands; what it prints is what README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```\s+prints `([^`]+)`", README, re.DOTALL)


def test_every_program_of_the_readme_says_what_it_prints() -> None:
    assert len(PROGRAMS) == README.count("```python") == 3


@pytest.mark.parametrize(("program", "printed"), PROGRAMS, ids=["asyncio", "threads", "by hand"])
def test_a_program_of_the_readme_prints_what_it_says(
    program: str, printed: str, redis_url: str
) -> None:
    assert "redis://127.0.0.1:6379" in program
    ran = subprocess.run(
        [sys.executable, "-c", program.replace("redis://127.0.0.1:6379", redis_url)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in ("", *sys.path) if p)},
        check=False,
    )
    assert (ran.stdout.strip(), ran.returncode) == (printed, 0), ran.stderr
