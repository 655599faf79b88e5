"""What a user installs from: a folder, an archive, trees without links; one name comes of each."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.coordinator.scripts.composing import ENTRY_POINTS, compose
from tests.support_installs import (
    BARE_NAMES,
    ROOT,
    WORKFLOW,
    Environment,
    cloned_tree,
    copied_tree,
    image_tree,
    links_of,
    plain_tree,
    source_archive,
    unlinked_tree,
    unzipped_tree,
    user_environ,
    wheel_of,
)

SAYS = """
import importlib.metadata, importlib.util, json, sys
from importlib.resources import files
import forebay
from forebay.contracts.errors import ForebayError
from forebay.coordinator.scripts.composing import ENTRY_POINTS, compose
example = files("forebay.demo.support_triage")
print(json.dumps({
    "is one class": forebay.ForebayError is ForebayError,
    "scripts": {name: compose(name).sha for name in ENTRY_POINTS},
    "importable": [name for name in sys.argv[1:] if importlib.util.find_spec(name)],
    "example": [len((example / name).read_bytes()) for name in ("workflow.toml", "messages.csv")],
    "versions": [forebay.__version__, importlib.metadata.version("forebay")],
}))
"""
USER = """
from typing import assert_type

import forebay

MODEL = forebay.ProviderModelKey(provider_name="local", model_id="large")
assert_type(MODEL.provider_name, str)
CHAT = forebay.RequestResourceKey(provider_model="large")  # type: ignore[arg-type]


async def main() -> None:
    async with forebay.connect("redis://127.0.0.1") as requests:
        lease = await requests.acquire(forebay.RequestAdmissionItem(resource=CHAT))
        assert_type(lease, forebay.RequestAdmissionLease)
        forebay.nothing  # type: ignore[attr-defined]
"""

Source = Callable[[Path, Path], Path]
TREES: dict[str, Source] = {
    "a folder": copied_tree,
    "a ZIP": unzipped_tree,
    "a tree whose links are gone": unlinked_tree,
    "a clone without links": cloned_tree,
}
SOURCES = {**TREES, "a source distribution": source_archive}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source as it is here; a test copies it."""
    return plain_tree(tmp_path_factory.mktemp("tree") / "forebay")


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return wheel_of(copied_tree(tree, folder / "tree"), folder / "built")


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


# --- what is built


def test_the_only_name_in_the_wheel_is_forebay(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in names_in(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"forebay"}


def test_the_wheel_of_a_source_distribution_is_the_same(
    tree: Path, wheel: Path, tmp_path: Path
) -> None:
    archive = source_archive(copied_tree(tree, tmp_path / "tree"), tmp_path / "archive")
    assert names_in(wheel_of(archive, tmp_path / "wheel")) == names_in(wheel)


def test_the_wheel_in_the_image_is_the_same(tree: Path, wheel: Path, tmp_path: Path) -> None:
    image = image_tree(tree, tmp_path / "image")
    assert names_in(wheel_of(image, tmp_path / "wheel")) == names_in(wheel)


def test_what_an_older_version_left_in_the_build_folder_is_not_packed(
    tree: Path, wheel: Path, tmp_path: Path
) -> None:
    again = copied_tree(tree, tmp_path / "tree")
    for name in BARE_NAMES:
        (again / "build" / "lib" / name).mkdir(parents=True)
        (again / "build" / "lib" / name / "__init__.py").touch()
    assert names_in(wheel_of(again, tmp_path / "wheel")) == names_in(wheel)


def test_type_checkers_see_the_types_of_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env", "forebay")
    environment.install(str(wheel))
    (tmp_path / "user.py").write_text(USER)
    options = ("--strict", "--python-executable", str(environment.python), "--config-file", "")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "user.py"],
        cwd=tmp_path,
        env=user_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout == "Success: no issues found in 1 source file\n", checked


# --- what is installed


@pytest.mark.parametrize("kind", [kind for kind in TREES if kind != "a folder"])
def test_tree_without_links_has_none_indeed(kind: str, tree: Path, tmp_path: Path) -> None:
    assert {link.name for link in links_of(tree)} == {*BARE_NAMES, "support_triage"}
    assert links_of(TREES[kind](tree, tmp_path / "new")) == []


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(pytest.param(kind, [], id=kind) for kind in SOURCES),
        *(pytest.param(kind, ["--editable"], id=f"{kind}, editable") for kind in TREES),
    ],
)
def test_every_install_has_one_name_and_all_its_files(
    kind: str, options: list[str], tree: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "env", "forebay")
    source = SOURCES[kind](tree, tmp_path / "new")
    environment.install(*options, str(source))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    others = (*BARE_NAMES, "bench", "examples", "jinja2", "setuptools", "tests")
    ran = environment.run(environment.python, "-c", SAYS, *others, cwd=elsewhere)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["is one class"]
    assert said["importable"] == []
    assert said["scripts"] == {name: compose(name).sha for name in ENTRY_POINTS}
    example = ROOT / "examples" / "support_triage"
    assert said["example"] == [
        (example / name).stat().st_size for name in ("workflow.toml", "messages.csv")
    ]
    refused = environment.run(environment.forebay, "run", "flow.toml", cwd=elsewhere)
    if kind == "a source distribution":
        assert f"run pip install 'forebay[run] @ {source.as_uri()}'." in refused.stderr
    else:
        assert f"run pip install '.[run]' in {source}." in refused.stderr
    shown = environment.run(environment.forebay, "--version", cwd=elsewhere)
    assert shown.stdout == f"forebay, version {said['versions'][1]}\n", shown.stderr
    assert said["versions"][0] == said["versions"][1]


def test_a_checkout_runs_where_it_was_never_installed(tree: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env", "forebay", "forebay[embedded,run]")
    checkout = copied_tree(tree, tmp_path / "checkout")
    (checkout / "flow.toml").write_text(WORKFLOW)
    (checkout / "seed.csv").write_text("id\n1\n2\n")
    command = (environment.python, "-m", "forebay", "run", "flow.toml")
    ran = environment.run(*command, cwd=checkout)
    assert "2 of 2 records written" in ran.stdout, ran.stderr
