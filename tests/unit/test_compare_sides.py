"""How two commits come to be measured: what cannot be built is said, and nothing is left over."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from bench.__main__ import main
from bench.compare import callgrind, sides
from bench.compare.command import compare
from bench.compare.counters import counted
from bench.compare.driver import Driver
from bench.compare.errors import ComparisonError
from bench.compare.sides import Side, build, clean_head, commit_of, git


def say_nothing(_line: str) -> None:
    """Be a progress that nobody reads."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one commit, whose distribution cannot be built."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project\n")
    (root / ".gitignore").write_text(".venv/\n")
    for command in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "one"),
    ):
        subprocess.run(["git", "-C", root, *command], check=True)
    return root


# -- the commits


def test_a_ref_is_the_commit_that_it_names(repository: Path) -> None:
    assert commit_of("HEAD", repository) == clean_head(repository)


@pytest.mark.parametrize("ref", ["nowhere", "", "--help", "HEAD:pyproject.toml"])
def test_a_ref_that_names_no_commit_is_named(repository: Path, ref: str) -> None:
    with pytest.raises(ComparisonError, match=r"names no commit of .*, expected a branch") as told:
        commit_of(ref, repository)
    assert repr(ref) in str(told.value)


def test_a_change_in_no_commit_is_named(repository: Path) -> None:
    (repository / "new.py").write_text("")
    (repository / "pyproject.toml").write_text("")
    with pytest.raises(ComparisonError, match=r"\(pyproject.toml and 1 more\).*commit or stash"):
        clean_head(repository)


def test_a_folder_that_is_no_clone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match="expected a clone of the repository; it said: fatal"):
        clean_head(tmp_path)


def test_a_machine_without_git_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ComparisonError, match="expected it on PATH; install git"):
        clean_head(tmp_path)


def test_a_commit_that_cannot_be_installed_is_named_and_leaves_nothing(repository: Path) -> None:
    sha = clean_head(repository)
    with pytest.raises(
        ComparisonError, match=f"baseline {sha[:12]} could not be installed"
    ) as told:
        build("baseline", sha, say_nothing, repository)
    assert "\n" not in str(told.value)
    assert len(git("worktree", "list", root=repository).splitlines()) == 1
    assert [path.name for path in (repository / ".venv" / "compare").iterdir()] == ["lock"]


def test_an_environment_that_is_there_is_used_again_and_the_oldest_go(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = []

    def install(side: Side, _tree: Path, environment: Path, _constraints: str) -> None:
        installed.append(side.sha)
        environment.mkdir()

    monkeypatch.setattr(sides, "_install", install)
    monkeypatch.setattr(sides, "KEPT", 1)
    sha = clean_head(repository)
    first = build("baseline", sha, say_nothing, repository)
    assert build("candidate", sha, say_nothing, repository).python == first.python
    assert installed == [sha]
    monkeypatch.setattr(sides, "EXTRAS", "others")  # is another environment
    second = build("baseline", sha, say_nothing, repository)
    assert not first.python.parents[1].exists()
    assert second.python.parents[1].exists()


# -- a tree from before the library had one name


def said_by(code: str, folder: Path) -> str:
    """Run a program in a folder, without this environment's packages; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_old_packages_are_found_under_the_new_names_and_only_once(tmp_path: Path) -> None:
    for package in ("forebay", "contracts", "coordinator", "coordinator/tasks"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "contracts" / "identity.py").write_text("class Key: ...\n")
    (tmp_path / "coordinator" / "tasks" / "controller.py").write_text(
        "from contracts.identity import Key\n"
    )
    (tmp_path / "old_names.py").write_text(sides.OLD_NAMES.read_text())
    code = """
import old_names
from forebay.contracts.identity import Key
from forebay.coordinator.tasks import controller
import contracts.identity
assert controller.Key is Key is contracts.identity.Key
assert controller.__name__ == "coordinator.tasks.controller"
try:
    import forebay.elsewhere
except ModuleNotFoundError:
    print("ok")
"""
    assert said_by(code, tmp_path) == "ok\n"


def test_names_are_found_where_they_were_in_an_older_tree(tmp_path: Path) -> None:
    old = {
        "forebay/contracts/requests.py": "SUCCESS = 'success'\n",
        "forebay/contracts/tasks.py": "TaskCompleted = 'completed'\n",
        "forebay/coordinator/embedded.py": "EmbeddedServer = 'embedded'\n",
        "forebay/workers/arq_worker.py": "open_worker = 'worker'\n",
    }
    for file, text in old.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).parent.joinpath("__init__.py").touch()
        (tmp_path / file).write_text(text)
    (tmp_path / "old_names.py").write_text(sides.OLD_NAMES.read_text())
    code = """
import old_names
from forebay.contracts.outcomes import SUCCESS, TaskCompleted
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.workers.arq.open_worker import open_worker
print(SUCCESS, TaskCompleted, EmbeddedServer, open_worker)
try:
    from forebay.contracts.outcomes import elsewhere
except ImportError:
    print("ok")
"""
    assert said_by(code, tmp_path) == "success completed embedded worker\nok\n"


def test_a_tree_that_has_a_name_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "forebay" / "contracts"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "requests.py").write_text("SUCCESS = 'the old one'\n")
    (folder / "outcomes.py").write_text("SUCCESS = 'its own'\n")
    (tmp_path / "old_names.py").write_text(sides.OLD_NAMES.read_text())
    code = "import old_names\nfrom forebay.contracts.outcomes import SUCCESS\nprint(SUCCESS)\n"
    assert said_by(code, tmp_path) == "its own\n"


def test_every_moved_name_is_one_of_this_tree() -> None:
    # read, not imported: it changes what imports find, also in this process
    tables = {
        node.target.id: ast.literal_eval(node.value)
        for node in ast.parse(sides.OLD_NAMES.read_text()).body
        if isinstance(node, ast.AnnAssign) and node.target.id in {"PACKAGES", "MOVED"}
    }
    for name in (*tables["PACKAGES"], *tables["MOVED"]):
        assert importlib.util.find_spec(name), name


# -- turns


def side(folder: Path, role: str, body: str) -> Side:
    """A side whose interpreter is a shell script; each notes its turns."""
    python = folder / role
    python.write_text(f"#!/bin/sh\necho {role} $6 >> {folder}/turns\n{body}\n")
    python.chmod(0o755)
    return Side(role=role, sha=role[0] * 40, python=python)


def turn(**measures: float) -> str:
    return f"echo noise; echo '{json.dumps({'measures': measures, 'versions': {}})}'"


def test_sides_take_turns_and_alternate_who_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.compare.driver.why_not", lambda: "no valgrind")
    both = side(tmp_path, "baseline", turn(a=2)), side(tmp_path, "candidate", turn(a=3))
    pairs = Driver(both, tmp_path, say_nothing, is_smoke=False).compare("micro", 4)
    order = (tmp_path / "turns").read_text().split("\n")
    ab, ba = ["baseline timed", "candidate timed"], ["candidate timed", "baseline timed"]
    assert order[:-1] == [*ab, *ba, *ab, *ba]
    assert pairs.ratios("a") == (1.5,) * 4
    assert all(one["wall_time_seconds"] > 0 for one in pairs.iterations)
    assert pairs.not_counted == "no valgrind"


def test_instructions_are_counted_in_turns_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.compare.driver.why_not", lambda: None)
    both = side(tmp_path, "baseline", turn(a=2)), side(tmp_path, "candidate", turn(a=3))
    Driver(both, tmp_path, say_nothing, is_smoke=False).compare("micro", 1)
    kinds = [line.split()[1] for line in (tmp_path / "turns").read_text().splitlines()]
    assert kinds == ["timed"] * 2 + ["instructions"] * 12


def test_callgrind_that_fails_costs_the_instructions_alone_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.compare.driver.why_not", lambda: None)
    body = f'test "$6" = timed || {{ echo "CallgrindError: SIGILL" >&2; exit 1; }}; {turn(a=2)}'
    both = side(tmp_path, "baseline", body), side(tmp_path, "candidate", body)
    pairs = Driver(both, tmp_path, say_nothing, is_smoke=False).compare("micro", 3)
    assert pairs.ratios("a") == (1.0,) * 3
    assert "CallgrindError: SIGILL" in (pairs.not_counted or "")


def test_a_turn_that_fails_names_its_side_and_the_last_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = "echo Traceback >&2; echo 'ImportError: no name X' >&2; exit 1"
    both = side(tmp_path, "baseline", fails), side(tmp_path, "candidate", turn())
    with pytest.raises(ComparisonError, match=r"baseline bbbbbbbbbbbb failed.*ImportError: no"):
        Driver(both, tmp_path, say_nothing, is_smoke=True).compare("micro", 1)
    assert "Traceback" in capsys.readouterr().err


def test_commands_within_scripts_are_counted_and_the_benchs_own_are_not(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.function_load(
            "#!lua name=counted\nredis.register_function('counted', function(keys)\n"
            "redis.call('SET', keys[1], 1) return redis.call('GET', keys[1]) end)",
            replace=True,
        )
        before = counted(client)
        for _ in range(10):
            client.fcall("counted", 1, "key")
        list(client.scan_iter("*"))
        found = counted(client).since(before)
        client.function_delete("counted")
    assert found.commands == 30
    assert found.per(10, "pair") == {
        "pair.commands": 3.0,
        "pair.fcall_us": found.function_us / 10,
    }
    assert found.function_us > 0


def test_a_machine_without_valgrind_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install valgrind" in (callgrind.why_not() or "")


# -- the command line


def test_a_scenario_without_turns_is_refused_with_those_that_have_them(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match="expected one of micro, handoff, jobs"):
        compare("HEAD", "memory", pairs=None, out=tmp_path, is_smoke=True, progress=say_nothing)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["micro", "--pairs", "30"], "--pairs is for --baseline REF"),
        (["micro", "--baseline", "HEAD", "--rounds", "3"], "--baseline REF takes --pairs"),
        (["micro", "--baseline", "HEAD", "--pairs", "19"], "19 is not in the range x>=20"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert said in done.output
