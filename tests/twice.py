"""Run pytest; the few tests that fail run once more, alone, and are named if they pass only then.

Tests with real processes and servers share two cores with others in CI, where one in thousands may
miss a deadline. A test that fails twice fails; more than `FEW` failures are never tried again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FEW = 3
CACHE = Path(".pytest_cache/twice")


def failed() -> list[str]:
    """Name the tests that failed in the run before."""
    file = CACHE / "v/cache/lastfailed"
    return sorted(json.loads(file.read_text())) if file.exists() else []


def run(*arguments: str) -> int:
    """Run pytest with a cache of its own and return its exit code."""
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={CACHE}", *arguments]
    return subprocess.run(command, check=False).returncode


def main(paths: list[str], workers: str) -> int:
    """Return the exit code of the first run, or of the second where a few tests failed.

    Args:
        paths: Folders of tests.
        workers: How many processes of the first run, as pytest-xdist's `-n` takes it.
    """
    chunks = ("--dist", "load", "--maxschedchunk", "1")  # a worker takes two tests ahead, no more
    code = run("--cache-clear", "-n", workers, *chunks, *paths)
    names = failed()
    if code != 1 or not 0 < len(names) <= FEW:
        return code
    print(f"\n{len(names)} of the tests failed; once more, alone:", *names, sep="\n  ", flush=True)
    code = run(*names)
    if code == 0:
        print("unsteady, as only the second try passed:", *names, sep="\n  ", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], sys.argv[1]))
