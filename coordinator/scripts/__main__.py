"""``python -m forebay.coordinator.scripts``: check every script, or show one as it runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from forebay.coordinator.scripts.composing import ENTRY_POINTS, FUNCTIONS, compose

USAGE: Final = f"""\
usage: python -m forebay.coordinator.scripts check      run luacheck on every script
       python -m forebay.coordinator.scripts show NAME  print one as the server runs it
NAME is one of: {", ".join(ENTRY_POINTS)}"""


def main(arguments: list[str]) -> int:
    """Run one command; return its exit status, 2 for an unknown one."""
    match arguments:
        case ["check"]:
            return luacheck()
        case ["show", name] if name in ENTRY_POINTS:
            sys.stdout.write(shown(name))
            return 0
        case ["show", name]:
            sys.stderr.write(f"there is no script {name!r}.\n{USAGE}\n")
            return 2
        case _:
            sys.stderr.write(f"{USAGE}\n")
            return 2


def shown(name: str) -> str:
    """Return a script as the server gets it: a function library, or a text to evaluate."""
    composed = compose(name)
    return composed.library if name in FUNCTIONS else composed.text


def luacheck() -> int:
    """Run luacheck over every composed entry point; return its exit status."""
    program = shutil.which("luacheck")
    if program is None:
        sys.stderr.write("luacheck is not installed: apt-get install lua-check\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        for name in ENTRY_POINTS:
            (Path(folder) / (name.replace("/", "_") + ".lua")).write_text(compose(name).text)
        return subprocess.run(
            [program, "--std", "lua51", "--globals", "redis", "KEYS", "ARGV", "cjson",
             "--max-line-length", "140", "--quiet", folder],
            check=False,
        ).returncode  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
