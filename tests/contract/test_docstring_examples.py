"""Each example of an exported name's docstring runs and prints what it says."""

from __future__ import annotations

import asyncio
import doctest
import inspect
from pathlib import Path

import pytest

import forebay
from tests.support_public_names import public_objects

CHAT = forebay.RequestResourceKey(
    provider_model=forebay.ProviderModelKey(provider_name="openai", model_id="gpt-5")
)
FINDER = doctest.DocTestFinder(exclude_empty=True, recurse=False)
EXAMPLES = [
    example
    for name, documented in public_objects()
    for example in FINDER.find(documented, name, module=False)
    if example.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_prints_what_its_docstring_says(
    example: doctest.DocTest, redis_url: str, tmp_path: Path
) -> None:
    example.globs |= {
        "forebay": forebay,
        "asyncio": asyncio,
        "url": redis_url,
        "chat": CHAT,
        "folder": tmp_path,
    }
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert runner.run(example, out=said.append, clear_globs=False).failed == 0, "".join(said)


def test_examples_use_no_name_that_a_reader_cannot_know() -> None:
    """The names given besides ``forebay`` stand on the first page of docs/api."""
    page = Path(__file__).parents[2] / "docs" / "api" / "connections.rst"
    text = inspect.cleandoc(page.read_text("utf-8"))
    assert all(f"`{name}`" in text for name in ("url", "chat", "asyncio", "folder"))
