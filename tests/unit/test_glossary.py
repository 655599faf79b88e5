"""The words of docs/glossary.md are the words of the code, and their synonyms are not."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("contracts", "coordinator", "workers", "forebay", "lua")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> list[str]:
    """Return the words in the first cells of the table below a line that begins so."""
    lines = GLOSSARY.split(heading, 1)[1].split("\n| --- | --- |\n", 1)[1].splitlines()
    table = lines[: next((i for i, line in enumerate(lines) if not line.startswith("|")), None)]
    return [word for line in table for word in line.split("|")[1].strip().split(", ")]


TERMS = first_cells("# Glossary")
SYNONYMS = first_cells("## Words that are not used")


@cache
def code() -> dict[str, str]:
    """Return the production code as words in lower case, by file."""
    paths = [
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".lua") and "__pycache__" not in path.parts
    ]
    found = {}
    for path in paths:
        text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", path.read_text(encoding="utf-8"))
        found[str(path.relative_to(ROOT))] = re.sub(r"[\s_-]+", " ", text).lower()
    return found


def files_with(word: str) -> list[str]:
    """Return the files in which a word stands, alone or as a part of a name, in any number."""
    pattern = re.compile(rf"\b{re.escape(word.replace('-', ' '))}(?:s|es|ed|d|ing)?\b")
    return [path for path, text in code().items() if pattern.search(text)]


def test_the_glossary_has_about_thirty_terms() -> None:
    assert 25 <= len(TERMS) <= 45
    assert len(TERMS) == len(set(TERMS))


@pytest.mark.parametrize("term", TERMS)
def test_each_term_is_a_word_of_the_code(term: str) -> None:
    assert files_with(term)


@pytest.mark.parametrize("synonym", SYNONYMS)
def test_no_synonym_stands_in_the_code(synonym: str) -> None:
    assert files_with(synonym) == []
