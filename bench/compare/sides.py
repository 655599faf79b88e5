"""The two sides of a comparison: a commit's library, installed into an environment of its own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from bench.compare.errors import ComparisonError
from bench.harness import Progress

ROOT: Final = Path(__file__).resolve().parents[2]
OLD_NAMES: Final = Path(__file__).with_name("old_names.py")
"""Imported by the processes of the sides alone: it changes what the imports of older trees find."""
EXTRAS: Final = "embedded,uvloop"
"""The extras of a tree that a measured process needs."""
KEPT: Final = 6
"""Environments that stay for later comparisons, the last used ones."""
COMPLETE: Final = "complete"
"""The file of an environment whose installation went through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One commit, ready to be measured.

    Attributes:
        role: ``baseline`` or ``candidate``.
        sha: the commit.
        python: the interpreter of its environment.
    """

    role: str
    sha: str
    python: Path

    def __str__(self) -> str:
        return f"{self.role} {self.sha[:12]}"


def git(*arguments: str, root: Path = ROOT) -> str:
    """Run git on the repository and return what it prints.

    Raises:
        ComparisonError: it is not installed, or refuses; with its own words.
    """
    try:
        done = subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise ComparisonError(
            f"git cannot be run ({error}), expected it on PATH; install git."
        ) from error
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise ComparisonError(
            f"git {arguments[0]} failed in {root}, expected a clone of the repository; it said:"
            f" {said[0]}"
        )
    return done.stdout.strip()


def clean_head(root: Path = ROOT) -> str:
    """Return the candidate: the commit that is checked out.

    Raises:
        ComparisonError: this is no clone, or has changes that are no part of that commit.
    """
    head = git("rev-parse", "--verify", "HEAD", root=root)
    if changed := git("status", "--porcelain", root=root).splitlines():
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ComparisonError(
            f"the work tree has changes that are in no commit ({changed[0].split()[-1]}{others}),"
            " expected none, as the candidate is HEAD; commit or stash them."
        )
    return head


def commit_of(ref: str, root: Path = ROOT) -> str:
    """Return the commit that a ref names.

    Raises:
        ComparisonError: it names none.
    """
    try:
        return git("rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}", root=root)
    except ComparisonError as error:
        raise ComparisonError(
            f"{ref!r} names no commit of {root}, expected a branch, a tag or a commit that this"
            " clone has; look with git log --oneline --all, or git fetch it."
        ) from error


def build(role: str, sha: str, progress: Progress, root: Path = ROOT) -> Side:
    """Return a side whose commit is installed; an environment that is there already is used again.

    Raises:
        ComparisonError: the commit cannot be checked out or installed.
    """
    constraints = _constraints()
    described = f"{sys.version}\n{EXTRAS}\n{constraints}\n{OLD_NAMES.read_text()}"
    digest = hashlib.sha256(described.encode()).hexdigest()[:8]
    cache = root / ".venv" / "compare"
    cache.mkdir(parents=True, exist_ok=True)
    environment = cache / f"{sha[:12]}-{digest}"
    side = Side(role=role, sha=sha, python=environment / "bin" / "python")
    with _locked(cache):
        if not (environment / COMPLETE).exists():
            progress(f"{side}: installing it into {environment.relative_to(root)} ...")
            shutil.rmtree(environment, ignore_errors=True)
            try:
                with _work_tree(sha, root) as tree:
                    _install(side, tree, environment, constraints)
            except BaseException:
                shutil.rmtree(environment, ignore_errors=True)
                raise
        (environment / COMPLETE).touch()
        _forget_old(cache)
    return side


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one comparison at a time install."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_old(cache: Path) -> None:
    complete = sorted(cache.glob(f"*/{COMPLETE}"), key=lambda stamp: stamp.stat().st_mtime)
    for stamp in complete[:-KEPT]:
        shutil.rmtree(stamp.parent)


@contextlib.contextmanager
def _work_tree(sha: str, root: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        tree = Path(folder) / "tree"
        git("worktree", "add", "--quiet", "--detach", str(tree), sha, root=root)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree), root=root)


def _constraints() -> str:
    """Return the installed versions, which both sides get."""
    installed = {
        found.metadata["Name"]: found.version
        for found in metadata.distributions()
        if found.metadata["Name"] not in {"forebay", "pip", "setuptools"}
    }
    return "".join(f"{name}=={version}\n" for name, version in sorted(installed.items()))


def _install(side: Side, tree: Path, environment: Path, constraints: str) -> None:
    python = str(side.python)
    _run(side, sys.executable, "-m", "venv", "--without-pip", str(environment))
    wanted = environment / "constraints.txt"
    wanted.write_text(constraints)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    pip += ["--disable-pip-version-check", f"{tree}[{EXTRAS}]"]
    try:
        _run(side, *pip, "--constraint", str(wanted))
    except ComparisonError:
        _run(side, *pip)  # its own bounds may ask for others; then the table tells of them
    site = Path(_run(side, python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    shutil.copy(OLD_NAMES, site / "_forebay_old_names.py")
    (site / "_forebay_old_names.pth").write_text("import _forebay_old_names\n")


def _run(side: Side, *command: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["nothing"]
        raise ComparisonError(
            f"{side} could not be installed, expected a commit that pip installs with the extras"
            f" {EXTRAS}; choose another, or mend what it says: {said[-1]}"
        )
    return done.stdout.strip()
