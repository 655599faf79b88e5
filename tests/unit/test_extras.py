"""Remedies that say what to install: true here, in an installed wheel, and in every document."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from forebay.contracts import extras
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import MODULES, how_to_install, missing_modules, require_extra
from forebay.transports.identity import LIBRARIES
from tests.support_extras import OF_EXTRAS

REPO = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SOURCES = [
    path
    for folder in ("contracts", "coordinator", "workers", "forebay", "bench", "examples")
    for path in (REPO / folder).rglob("*.py")
]
DOCUMENTS = [
    *(REPO.glob("*.md")),
    *(REPO / "docs").rglob("*.md"),
    *(REPO / "examples").rglob("*.md"),
]


class Installed:
    """What `importlib.metadata` says of a wheel that pip installed from somewhere."""

    def __init__(self, direct_url: object) -> None:
        self._direct_url = direct_url

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._direct_url is None else json.dumps(self._direct_url)


def remedy_of_installed(monkeypatch: pytest.MonkeyPatch, folder: Path, direct_url: object) -> str:
    """Return the remedy of a Forebay that lies in ``folder`` and came from ``direct_url``."""

    class Spec:
        origin = str(folder / "forebay" / "__init__.py")

    monkeypatch.setattr(extras, "find_spec", lambda _name: Spec)
    monkeypatch.setattr(extras, "distribution", lambda _name: Installed(direct_url))
    return how_to_install("run")


def test_in_a_checkout_the_remedy_names_the_checkout() -> None:
    assert how_to_install("run") == f"pip install '.[run]' in {REPO}"


def test_installed_from_a_folder_the_remedy_names_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = remedy_of_installed(monkeypatch, tmp_path, {"url": REPO.as_uri(), "dir_info": {}})
    assert said == f"pip install '.[run]' in {REPO}"


def test_installed_from_an_archive_the_remedy_names_the_archive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = tmp_path / "forebay 0.1.whl"
    wheel.touch()
    said = remedy_of_installed(monkeypatch, tmp_path, {"url": wheel.as_uri(), "archive_info": {}})
    assert said == f"pip install 'forebay[run] @ {wheel.as_uri()}'"
    assert Requirement(said.split("'")[1]).url == wheel.as_uri()


def test_installed_from_a_repository_the_remedy_names_its_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    noted = {"url": "https://h.example/f.git", "vcs_info": {"vcs": "git", "commit_id": "0ab1"}}
    said = remedy_of_installed(monkeypatch, tmp_path, noted)
    assert said == "pip install 'forebay[run] @ git+https://h.example/f.git@0ab1'"


@pytest.mark.parametrize(
    "direct_url",
    [None, [], {}, {"url": "file:///gone/forebay.whl", "archive_info": {}}],
    ids=["nothing noted", "nonsense noted", "no url", "an archive that is gone"],
)
def test_installed_from_nowhere_that_is_known_the_remedy_asks_for_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, direct_url: object
) -> None:
    said = remedy_of_installed(monkeypatch, tmp_path, direct_url)
    assert said == "pip install '.[run]' in a checkout of Forebay"


def test_a_pyproject_of_somebody_else_is_not_taken_for_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n')
    said = remedy_of_installed(monkeypatch, tmp_path, None)
    assert said == "pip install '.[run]' in a checkout of Forebay"


def test_an_extra_that_is_there_is_not_asked_for() -> None:
    assert missing_modules("demo") == {}
    require_extra("demo", "a test")


def test_every_missing_module_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    with pytest.raises(ConfigurationError, match="a test needs httpx2, jsonschema_rs, expected"):
        require_extra("run", "a test")


def test_a_module_that_is_there_but_broken_is_named_with_its_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "jinja2.py").write_text("raise ImportError('built for another Python')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jinja2", raising=False)
    with pytest.raises(ConfigurationError, match=r"needs jinja2, .*\(built for another Python\)"):
        require_extra("run", "a test")


# --- what is said agrees with pyproject.toml


@pytest.mark.parametrize("extra", ["run", "mock"])
def test_modules_of_a_command_are_those_that_its_extra_brings(extra: str) -> None:
    assert sorted(MODULES[extra]) == sorted(
        Requirement(line).name.replace("-", "_") for line in EXTRAS[extra]
    )


def test_the_demo_needs_what_its_extra_brings_but_what_has_a_substitute() -> None:
    [own, plot] = (Requirement(line) for line in EXTRAS["demo"])
    assert (own.name, plot.name) == ("forebay", "matplotlib")
    needed = {*MODULES["run"], *MODULES["mock"], "matplotlib"}
    assert (own.extras - {"embedded", "uvloop"}, set(MODULES["demo"])) == ({"run", "mock"}, needed)


def test_every_extra_is_hidden_where_none_shall_be_importable() -> None:
    brought = {
        Requirement(line).name.lower().replace("_", "-")
        for name in EXTRAS
        if name not in {"dev", "docs", "bench"}  # none is a part of the installed program
        for line in EXTRAS[name]
    }
    distributions = packages_distributions()
    hidden = {
        owner.lower().replace("_", "-")
        for name in OF_EXTRAS
        for owner in distributions.get(name, ())
    }
    assert brought - hidden - {"forebay", "tiktoken"} == set()
    assert "tiktoken" in OF_EXTRAS


def test_every_extra_that_is_named_exists() -> None:
    named = set(LIBRARIES) | set(MODULES)
    for path in SOURCES:
        named |= set(re.findall(r"how_to_install\([\"'](\w+)[\"']\)", path.read_text()))
    assert {"run", "embedded", "yaml"} < named
    assert named - set(EXTRAS) == set()


def test_no_other_place_builds_such_a_remedy() -> None:
    said = {path.relative_to(REPO) for path in SOURCES if "pip install" in path.read_text()}
    builds_another_tree = Path("bench/compare/sides.py")
    assert said - {builds_another_tree} == {Path("contracts/extras.py")}


def test_documents_install_from_a_checkout_as_there_is_no_release() -> None:
    installs = [
        (path.name, found)
        for path in DOCUMENTS
        for found in re.findall(r"pip install ([^\n`;]*)", path.read_text())
    ]
    assert installs
    for _, found in installs:
        assert "forebay" not in found
