"""`forebay worker` as a process, in the folder of an application."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def worker(
    app: Path, redis_url: str | None, settings: str = "app.WorkerSettings", *options: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a worker for the length of the block; it is killed if it still runs then.

    Args:
        app: the current folder.
        redis_url: said as ``--url``; None for what the settings say.
        settings: class to run.
        options: further ones.
    """
    url = () if redis_url is None else ("--url", redis_url)
    with subprocess.Popen(
        [sys.executable, "-m", "forebay", "worker", settings, *url, *options],
        cwd=app,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
