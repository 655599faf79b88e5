"""The dashboard and the alert rules name metrics and labels that `forebay ops` has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import CounterMetricFamily

from forebay.ops.metrics import METRICS

FOLDER = Path(__file__).parents[2] / "examples/ops"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
SAMPLES = {
    f"{name}_total" if spec.kind is CounterMetricFamily else name: spec
    for name, spec in METRICS.items()
}
EXPRESSIONS = [
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
    *(rule["expr"] for rule in RULES),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_what_exists(expression: str) -> None:
    names = set(re.findall(r"forebay_\w+", expression))
    assert names
    assert names <= SAMPLES.keys()
    labels = {label for name in names for label in SAMPLES[name].labels}
    matched = re.findall(r"[{,](\w+)=", expression)
    summed = [
        name for text in re.findall(r"by \(([^)]+)\)", expression) for name in text.split(", ")
    ]
    assert {*matched, *summed} <= labels


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for part in value.values():
                yield from _texts(part)
        case list():
            for part in value:
                yield from _texts(part)


@pytest.mark.parametrize("where", [*DASHBOARD["panels"], *RULES], ids=str)
def test_a_legend_or_summary_names_labels_that_the_metric_has(where: dict[str, Any]) -> None:
    texts = list(_texts(where))
    names = [name for text in texts for name in re.findall(r"forebay_\w+", text) if name in SAMPLES]
    labels = {label for name in names for label in SAMPLES[name].labels}
    told = {name for text in texts for name in re.findall(r"{{ ?(?:\$labels\.)?(\w+) ?}}", text)}
    assert told <= labels


def test_every_rule_says_what_to_do() -> None:
    assert all({"summary", "remedy"} <= rule["annotations"].keys() for rule in RULES)


def test_no_two_panels_share_an_id_or_a_place() -> None:
    panels = DASHBOARD["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len({panel["id"] for panel in panels}) == len(panels) == len(places)


def test_every_rule_waits_before_it_fires_and_is_documented() -> None:
    assert all(re.fullmatch(r"\d+[smh]", rule["for"]) for rule in RULES)
    page = (FOLDER.parents[1] / "docs/ops.md").read_text()
    assert re.findall(r"^\| `(Forebay\w+)` \|", page, re.MULTILINE) == [
        rule["alert"] for rule in RULES
    ]
