"""Trees as users have them, and environments in which they are installed without a network."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parents[1]
BARE_NAMES: Final = ("contracts", "coordinator", "lua", "workers")
NOT_SOURCE: Final = shutil.ignore_patterns(
    *(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "build", "dist", "out"),
    *("*.egg-info", "*.py[cod]"),
)
"""What is in no commit."""
WORKFLOW: Final = """
name = "flow"

[output]
path = "records.jsonl"

[[columns]]
generator = "seed"
names = ["id"]
path = "seed.csv"

[[columns]]
generator = "expression"
name = "twice"
template = "{{ id }}{{ id }}"
"""
"""A workflow that needs no provider; its seed.csv has one column, id."""


# --- trees


def plain_tree(folder: Path) -> Path:
    """Copy the source as it is, links included."""
    return Path(shutil.copytree(ROOT, folder, symlinks=True, ignore=NOT_SOURCE))


def copied_tree(tree: Path, folder: Path) -> Path:
    """Copy a tree as it is, links included."""
    return Path(shutil.copytree(tree, folder, symlinks=True))


def links_of(tree: Path) -> list[Path]:
    """Return the links of a tree."""
    return [path for path in (tree / "forebay").rglob("*") if path.is_symlink()]


def unzipped_tree(tree: Path, folder: Path) -> Path:
    """Pack a tree as a ZIP and unpack it as Windows does: links become files with their target."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(tree.rglob("*")):
            if path.is_symlink():
                file.writestr(str(path.relative_to(tree)), str(path.readlink()))
            elif path.is_file():
                file.write(path, path.relative_to(tree))
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


def unlinked_tree(tree: Path, folder: Path) -> Path:
    """Copy a tree without its links."""
    for link in links_of(copied_tree(tree, folder)):
        link.unlink()
    return folder


def cloned_tree(tree: Path, folder: Path) -> Path:
    """Commit a tree and clone it as git does where there are no symbolic links."""
    origin = folder.with_name(f"{folder.name}-origin")
    copied_tree(tree, origin)
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    git("init", "--quiet", cwd=origin)
    git("add", "--all", cwd=origin)
    git(*who, "commit", "--quiet", "--no-verify", "--message", "all", cwd=origin)
    git("clone", "--quiet", "-c", "core.symlinks=false", str(origin), str(folder), cwd=tree)
    return folder


def git(*arguments: str, cwd: Path) -> None:
    """Run git apart from the repository and the configuration of whoever runs the tests."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    run("git", *arguments, cwd=cwd, environ={**environ, "GIT_CONFIG_GLOBAL": os.devnull})


def source_archive(tree: Path, folder: Path) -> Path:
    """Build the source distribution of a tree."""
    folder.mkdir()
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    run(sys.executable, "-c", build, cwd=tree)
    [archive] = folder.iterdir()
    return archive


def image_tree(tree: Path, folder: Path) -> Path:
    """Copy what the Dockerfile copies before it installs."""
    folder.mkdir()
    build_stage = (tree / "Dockerfile").read_text().split("RUN pip ")[0]
    copies = [line.split()[1:] for line in build_stage.splitlines() if line.startswith("COPY ")]
    for *names, target in copies:
        for name in names:
            if (tree / name).is_file():
                shutil.copy(tree / name, folder / target)
            else:
                shutil.copytree(tree / name, folder / target, symlinks=True)
    return folder


def wheel_of(source: Path, folder: Path) -> Path:
    """Build the wheel of a tree or an archive."""
    folder.mkdir()
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir")
    run(sys.executable, "-m", "pip", "wheel", *options, str(folder), str(source), cwd=ROOT)
    [wheel] = folder.glob("*.whl")
    return wheel


# --- environments


class Environment:
    """A virtual environment that sees distributions of this one, and nothing else.

    Args:
        folder: where it is made.
        *brought: requirements that it sees, with all that these require, such as
            ``forebay[run]``; never forebay itself.
    """

    def __init__(self, folder: Path, *brought: str) -> None:
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
        self.python = folder / "bin" / "python"
        self.forebay = folder / "bin" / "forebay"
        self._build_tools = folder / "build-tools"
        _link_all(self._build_tools, "setuptools")
        _link_all(folder / "brought", *brought)
        [site] = folder.glob("lib/python*/site-packages")
        (site / "brought.pth").write_text(f"{folder / 'brought'}\n")

    def install(self, *what: str) -> None:
        """Install a tree, an archive or a wheel by pip, as a user without a network."""
        options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile")
        run(
            *(sys.executable, "-m", "pip", "--python", str(self.python), "install"),
            *(*options, *what),
            cwd=self.python.parent,
            environ={**os.environ, "PYTHONPATH": str(self._build_tools)},
        )

    def run(self, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python, or one of its commands, as a user in ``cwd``."""
        return subprocess.run(
            command,
            cwd=cwd,
            env=user_environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def user_environ() -> dict[str, str]:
    """Return the environment of a user: nothing in it leads Python to this repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*command: str, cwd: Path, environ: dict[str, str] | None = None) -> None:
    """Run a program; where it fails, what it said is the error."""
    ended = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"


def _required_by(wanted: Requirement) -> dict[str, Distribution]:
    """Return what a requirement brings, by name; forebay stands for its dependencies alone."""
    found: dict[str, Distribution] = {}
    open_ends = [wanted]
    seen = set()
    while open_ends:
        one = open_ends.pop()
        if str(one) in seen:
            continue
        seen.add(str(one))
        owner = distribution(one.name)
        if one.name != "forebay":
            found[one.name] = owner
        for line in owner.requires or ():
            needed = Requirement(line)
            extras = one.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                open_ends.append(needed)
    return found


def _link_all(folder: Path, *wanted: str) -> None:
    """Link the modules and metadata of requirements into a folder."""
    folder.mkdir()
    owners = {}
    for requirement in wanted:
        owners |= _required_by(Requirement(requirement))
    for owner in owners.values():
        for top in {file.parts[0] for file in owner.files or () if file.parts[0] != ".."}:
            if not top.endswith((".pth", "__pycache__")) and not (folder / top).is_symlink():
                (folder / top).symlink_to(Path(str(owner.locate_file(top))))
