"""A run over a provider, rows and templates that mean harm: each costs its own record alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from forebay.runtime import start_worker, stop_workers
from tests.support_answers import completion
from tests.support_raw_provider import Asked, RawProvider, Reply, begun_stream, chunk, whole
from tests.support_runs import forebay, read_records

FINE = [f"fine-{number}" for number in range(40)]
DROPPED = {
    "fence": "invalid_json after 1 attempts: not JSON",
    "long": "answer_too_long: raw/large answered with more than 1,048,576 bytes",
    "endless": "answer_too_long: raw/large",
    "deep": "invalid_json after 1 attempts: nested too deep",
    "digits": "invalid_json after 1 attempts: a whole number has more than 1,000 digits",
    "forking": "answer_not_checked: it takes more than 0.7 s of CPU time",
    "loop": "template_error in template: it takes more than 0.7 s of CPU time",
    "memory": "template_error in template: it takes more than 512 MB of memory",
    "text": "template_error in template: its text is longer than 4,194,304 characters",
}
ANSWERS = {
    "fence": "```" + "\n" * 20_000,
    "long": "x" * 2**20,
    "deep": "[" * 200_000,
    "digits": "1" * 200_000,
    "forking": json.dumps({"tree": json.loads("[" * 60 + "]" * 60)}),
}
TREE = {"allOf": [{"items": {"$ref": "#/$defs/tree"}}, {"items": {"$ref": "#/$defs/tree"}}]}
TEMPLATE = """
{%- if kind == 'loop' %}
{%- for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}
{%- elif kind == 'memory' %}{{ kind * 10 ** 9 }}
{%- elif kind == 'text' %}{% for a in range(99999) %}{{ kind|center(99) }}{% endfor %}
{%- else %}{{ kind }}: {{ made.said }}
{%- endif %}"""


async def answers_in_kind(asked: Asked, reply: Reply) -> None:
    kind = json.loads(asked.body)["messages"][0]["content"]
    if kind == "endless":
        await reply.send(begun_stream({"content-type": "application/json"}))
        while True:
            await reply.send(chunk(b" " * 10_000))
    text = ANSWERS.get(kind, json.dumps({"said": f"about {kind}"}))
    await reply.send(whole(completion(asked, text)))


def write_workflow(folder: Path, provider: RawProvider) -> Path:
    kinds = [*FINE[:20], *DROPPED, *FINE[20:]]
    (folder / "seed.csv").write_text("kind\n" + "".join(f"{kind}\n" for kind in kinds))
    document = {
        "name": "hostile",
        "buffer_size": 10,
        "output": {"path": "out.jsonl"},
        "providers": {"raw": {"base_url": provider.base_url}},
        "models": {"m": {"provider": "raw", "model": "large", "max_parallel_requests": 8}},
        "columns": [
            {"generator": "seed", "names": ["kind"], "path": "seed.csv"},
            {
                "generator": "llm_structured",
                "name": "made",
                "model": "m",
                "prompt": "{{ kind }}",
                "repair_attempts": 0,
                "schema": {
                    "properties": {"said": {"pattern": "^(a|b|[^z])*$"}, "tree": TREE},
                    "$defs": {"tree": TREE},
                },
            },
            {"generator": "expression", "name": "line", "template": TEMPLATE},
        ],
    }
    path = folder / "flow.yaml"
    path.write_text(json.dumps(document))  # YAML is a superset of JSON
    return path


def test_what_means_harm_costs_its_own_record_and_nothing_else(
    redis_url: str, tmp_path: Path
) -> None:
    with RawProvider(answers_in_kind) as provider:
        workflow = write_workflow(tmp_path, provider)
        # A TTL so short that a worker which stands still would lose its cells to the other.
        options = ("--ttl", "2", "--allow-path", str(tmp_path), "--allow-host", provider.host)
        workers = [start_worker(redis_url, *options) for _ in range(2)]
        try:
            done = forebay("run", workflow, "--url", redis_url, cwd=tmp_path)
        finally:
            stop_workers(workers)
        asked = Counter(json.loads(one.body)["messages"][0]["content"] for one in provider.asked)
    assert done.returncode == 3, done.stderr
    assert f"{len(FINE)} of {len(FINE) + len(DROPPED)} records written" in done.stdout
    assert read_records(tmp_path / "out.jsonl") == [
        {"kind": kind, "made": {"said": f"about {kind}"}, "line": f"{kind}: about {kind}"}
        for kind in FINE
    ]
    dropped = read_records(tmp_path / "out.dropped.jsonl")
    assert [row["record"] for row in dropped] == list(range(20, 20 + len(DROPPED)))
    for row, (kind, reason) in zip(dropped, DROPPED.items(), strict=True):
        assert str(row["reason"]).startswith(reason), kind
    assert asked == Counter([*FINE, *DROPPED])  # nothing was asked twice


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\\1"])
def test_a_schema_that_takes_more_than_linear_time_is_refused_before_anything_runs(
    redis_url: str, tmp_path: Path, pattern: str
) -> None:
    with RawProvider(answers_in_kind) as provider:
        workflow = write_workflow(tmp_path, provider)
        workflow.write_text(workflow.read_text().replace("^(a|b|[^z])*$", pattern))
        done = forebay("run", workflow, "--url", redis_url, "--workers", 1, cwd=tmp_path)
        assert provider.asked == []
    assert done.returncode == 1
    assert "columns[1].schema (column 'made'): not a usable JSON Schema: at $.properties" in (
        done.stderr
    )
    assert len(done.stderr.strip().splitlines()) == 1
