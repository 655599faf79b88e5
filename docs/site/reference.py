"""Writes the pages of docs/reference from the code: ``python -m docs.site.reference``.

tests/unit/test_docs_reference.py compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from docs.site.commands_page import commands_page
from docs.site.keys_page import keys_page
from docs.site.metrics_page import metrics_page
from docs.site.settings_page import settings_page

FOLDER: Final = Path(__file__).resolve().parents[1] / "reference"
PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "commands.md": commands_page,
    "keys.md": keys_page,
    "metrics.md": metrics_page,
    "settings.md": settings_page,
}
"""File name -> function that returns the page."""


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
