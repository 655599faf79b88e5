"""The pages of docs/reference are those that the code makes, and they leave out nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.site.commands_page import commands, options_of
from docs.site.keys_page import entries_of
from docs.site.reference import FOLDER, PAGES
from docs.site.settings_page import VARIABLES
from forebay.coordinator.keys import POOL_KEYS, REQUEST_KEYS

REPO = Path(__file__).resolve().parents[2]
OF_A_PROVIDER = re.compile(r"FOREBAY_PROVIDER_\w+_BASE_URL")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "run python -m docs.site.reference"


def test_each_page_of_the_folder_is_made() -> None:
    assert {path.name for path in FOLDER.iterdir()} == PAGES.keys()


@pytest.mark.parametrize(("folder", "kinds"), [("requests", REQUEST_KEYS), ("tasks", POOL_KEYS)])
def test_the_headers_name_each_key_and_no_other(folder: str, kinds: tuple[str, ...]) -> None:
    assert tuple(entries_of(folder)) == kinds


def test_each_key_of_arq_that_a_script_uses_is_on_the_page() -> None:
    lua = "".join(path.read_text("utf-8") for path in (REPO / "lua").rglob("*.lua"))
    kinds = set(re.findall(r"TASKS\.(?:arq_key|set)\('([\w-]+)'", lua))
    used = {f"arq:{kind}:ID" for kind in kinds} | set(re.findall(r"'(arq:\w+)'", lua))
    page = (FOLDER / "keys.md").read_text(encoding="utf-8")
    assert used == set(re.findall(r"^\| `(arq:[\w-]+(?::ID)?)`", page, re.MULTILINE))


def variables_read() -> set[str]:
    """Return the environment variables that the package's own code reads or names."""
    folders = ("contracts", "coordinator", "workers", "forebay")
    code = "".join(p.read_text("utf-8") for one in folders for p in (REPO / one).rglob("*.py"))
    named = re.findall(r'"(FOREBAY_[A-Z_]*[A-Z])"', code)
    read = re.findall(r'(?:environ\.get\(|environ\[|getenv\()\s*"(\w+)"', code)
    return {name for name in (*named, *read) if not OF_A_PROVIDER.fullmatch(name)}


def test_each_environment_variable_that_is_read_is_on_the_page() -> None:
    of_options = {
        option.variable
        for _, command in commands()
        for option in options_of(command)
        if option.variable
    }
    named = {name for name in VARIABLES if "<" not in name}
    assert variables_read() == of_options | named
