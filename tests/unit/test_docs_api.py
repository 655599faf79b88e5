"""The pages of docs/api name each exported name, once, and no name that is not public."""

from __future__ import annotations

import re
from pathlib import Path

import forebay
from forebay import sinks, transports

REPO = Path(__file__).resolve().parents[2]
PAGES = sorted((REPO / "docs" / "api").glob("*.rst"))
DOCUMENTED = re.compile(r"^\.\. auto(?:class|data|exception|function):: (\S+)$", re.MULTILINE)
BESIDES = {
    *(f"forebay.sinks.{name}" for name in sinks.__all__),
    "forebay.sinks.prometheus.PrometheusSink",
    "forebay.sinks.telemetry.OpenTelemetrySink",
    f"forebay.transports.{transports.TransportOptions.__name__}",
}
"""What a user meets that is imported from its own module."""


def test_the_api_pages_name_each_public_name_once() -> None:
    named = [name for page in PAGES for name in DOCUMENTED.findall(page.read_text("utf-8"))]
    assert sorted(named) == sorted([*(set(forebay.__all__) - {"__version__"}), *BESIDES])


def test_the_front_page_of_the_documents_leads_to_each_api_page() -> None:
    front = (REPO / "docs" / "index.md").read_text("utf-8").splitlines()
    assert {f"api/{page.stem}" for page in PAGES} <= set(front)
