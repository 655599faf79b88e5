"""The Python of README and docs/python.md, run as it stands, prints what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {page: (ROOT / page).read_text() for page in ("README.md", "docs/python.md")}
PROGRAM = re.compile(r"```python\n(.*?)```\s+prints `([^`]+)`", re.DOTALL)
PROGRAMS = {
    program: printed for text in PAGES.values() for program, printed in PROGRAM.findall(text)
}


def test_every_program_of_the_pages_says_what_it_prints() -> None:
    assert [len(PROGRAM.findall(text)) for text in PAGES.values()] == [1, 3]
    assert [text.count("```python") for text in PAGES.values()] == [1, 3]


@pytest.mark.parametrize(
    ("program", "printed"), PROGRAMS.items(), ids=["asyncio", "threads", "by hand"]
)
def test_a_program_of_a_page_prints_what_it_says(
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
