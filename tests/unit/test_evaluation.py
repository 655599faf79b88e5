"""What a hostile template, schema, answer or file may cost (ADR 0013).

CPU time is counted by the kernel, so what else the machine does changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from forebay.workers.evaluation.evaluator import (
    EvaluationFailed,
    EvaluationRefused,
    Evaluator,
    EvaluatorUnavailable,
    evaluator,
)
from forebay.workers.evaluation.limits import DOCUMENT_CPU_SECONDS
from forebay.workers.evaluation.templates import ParsedTemplate

MOST_CPU_SECONDS = 1.0
DOUBLING = (
    "{% set n = namespace(a='x') %}{% for i in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}"
)
NESTED_LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
FORKING = {
    "$defs": {
        **{f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)},
        "a40": {"type": "string"},
    },
    "$ref": "#/$defs/a0",
}
FORKING_TREE = {
    "$ref": "#/$defs/t",
    "$defs": {"t": {"allOf": [{"items": {"$ref": "#/$defs/t"}}, {"items": {"$ref": "#/$defs/t"}}]}},
}
MANY_PATTERNS = {"items": {"allOf": [{"pattern": f"^(a|b|{i})*$"} for i in range(3000)]}}
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
MERGES = "m0: &m0 {x: 1}\n" + "".join(
    f"m{i}: &m{i}\n  <<: [{', '.join([f'*m{i - 1}'] * 9)}]\n  k{i}: 1\n" for i in range(1, 40)
)


@pytest.fixture
def ours():
    """An evaluator of the test's own, whose processes have ended when it is over."""
    ours = Evaluator()
    yield ours
    ours.close()


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def outcome(ours: Evaluator, what: str, **arguments: Any) -> Any:
    """Return what came of it, after checking that it cost less than a second of CPU time."""
    used = cpu_of_children()
    try:
        return ours.evaluate_blocking(what, **arguments)
    except (EvaluationFailed, EvaluationRefused) as error:
        return error
    finally:
        ours.close()  # only now are its processes counted
        limit = arguments.get("cpu_seconds", MOST_CPU_SECONDS)
        assert cpu_of_children() - used < limit + 0.5


def template(ours: Evaluator, source: str, **values: Any) -> Any:
    return outcome(ours, "template", source=source, field="prompt", values=values)


def answer(ours: Evaluator, schema: Any, text: str) -> Any:
    return outcome(ours, "answer", schema=json.dumps(schema), answer=text)


@pytest.mark.parametrize(
    ("source", "bound"),
    [
        (NESTED_LOOPS, "CPU time"),
        ("{{ 9 ** (9 ** 9) }}", "CPU time"),
        ("{{ 'x' * 10 ** 10 }}", "memory"),
        ("{{ 'x'|center(10 ** 9) }}", "memory"),
        ("{{ '%1000000000d'|format(1) }}", "memory"),
        ("{{ 'x'.ljust(10 ** 9) }}", "memory"),
        (DOUBLING, ("memory", "CPU time")),  # whichever bound a busy machine meets first
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{% for i in range(90000) %}{{ text }}{% endfor %}", "longer than 4,194,304 characters"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "OverflowError"),
    ],
)
def test_a_hostile_template_costs_its_record_within_a_second(ours, source, bound):
    bounds = bound if isinstance(bound, tuple) else (bound,)
    said = str(template(ours, source, text="x" * 1000))
    assert any(each in said for each in bounds)


@pytest.mark.parametrize(
    "source", ["{{ 9 ** 9 ** 9 ** 9 }}", "{{ 'x'|center(10 ** 10)|length }}", "{{ 'x' * 10**9 }}"]
)
def test_nothing_of_a_template_is_worked_out_when_it_is_parsed_or_compiled(source):
    parsed = ParsedTemplate(source)
    assert not parsed.is_plain
    parsed.compile()


@pytest.mark.parametrize(
    ("schema", "text", "said"),
    [
        ({}, "```" + "\n" * 100_000, "not JSON"),
        ({}, "```\n" + "\n" * 100_000 + "```", "not JSON"),
        ({}, "`" * 1_000_000, "not JSON"),
        ({}, " " * 1_000_000, "not JSON"),
        ({}, "[" * 1_000_000, "nested too deep"),
        ({}, '{"a":' * 200 + "1" + "}" * 200, "nested too deep"),
        ({}, "1" * 1_000_000, "more than 1,000 digits"),
        ({}, f"[{','.join(['1' * 999] * 1000)}]", None),
        ({}, "1e" + "9" * 100_000, "not finite"),
        ({"pattern": "^(a+)+$"}, json.dumps("a" * 100_000 + "b"), "pattern does not hold"),
        ({"pattern": r"(x+x+)+y"}, json.dumps("x" * 900_000), "pattern does not hold"),
        ({"uniqueItems": True}, json.dumps([[i] for i in range(100_000)]), None),
        ({"enum": [{"a": i} for i in range(20_000)]}, '{"a": -1}', "expected one of the enum"),
        (FORKING, '"x"', "CPU time"),
        (FORKING_TREE, "[" * 60 + "]" * 60, "CPU time"),
        (MANY_PATTERNS, json.dumps(["ab" * 50] * 8000), "CPU time"),
    ],
)
def test_a_hostile_answer_or_schema_costs_its_record_within_a_second(ours, schema, text, said):
    came = answer(ours, schema, text)
    if said is None:
        assert came == json.loads(text)
    else:
        assert said in str(came)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "$.properties.a.pattern: a pattern cannot"),
        ({"pattern": "(?<!a)b"}, "at $.pattern: a pattern cannot look ahead or behind"),
        ({"pattern": r"(a)\1"}, "without back-references"),
        ({"patternProperties": {"(?!a)": {}}}, "cannot look ahead or behind"),
        ({"pattern": "(a{1000}){1000}"}, "small enough"),
        ({"$ref": "http://127.0.0.1:9/x"}, "a reference leads nowhere"),
        ({"$ref": "file:///etc/passwd"}, "a reference leads nowhere"),
        ({"$dynamicRef": "#/$defs/none"}, "a reference leads nowhere"),
        ({"$schema": "http://127.0.0.1:9/x"}, "meta-schema"),
    ],
)
def test_a_schema_that_cannot_be_checked_in_linear_time_or_alone_is_refused(ours, schema, said):
    assert said in str(outcome(ours, "schema", schema=json.dumps(schema)))


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("yaml", LAUGHS, "more than 100,000 values"),
        ("yaml", MERGES, None),
        ("yaml", "a: &a\n  <<: *a\n", "nested too deep"),
        ("yaml", "a: &a [*a]\n", "nested too deep"),
        ("yaml", "[" * 100_000, "nested too deep"),
        ("yaml", "a: 1" + ":1" * 100_000, "the number is too long"),
        ("yaml", "a: 0x" + "f" * 100_000, "the number is too long"),
        ("toml", "a = " + "[" * 100_000, "nested too deep"),
        ("toml", "a" + ".a" * 30_000 + " = 1", "it takes more than"),
        ("toml", "a = 0x" + "f" * 100_000, "the number is too large"),
        ("toml", "a = " + "1" * 100_000, "TOML syntax"),
    ],
)
def test_a_hostile_file_is_refused_within_its_bounds(ours, kind, text, said):
    came = outcome(ours, "document", cpu_seconds=DOCUMENT_CPU_SECONDS, kind=kind, text=text)
    if said is None:
        assert came["problem"] is None
    else:
        assert said in (came["problem"] if isinstance(came, dict) else str(came))


async def test_the_event_loop_goes_on_while_a_hostile_template_is_rendered(ours):
    turns = 0
    rendering = asyncio.create_task(
        ours.evaluate("template", source=NESTED_LOOPS, field="prompt", values={})
    )
    while not rendering.done():
        await asyncio.sleep(0)
        turns += 1
    with pytest.raises(EvaluationFailed, match=r"more than 0\.7 s of CPU time"):
        await rendering
    assert turns > 100
    # And the next evaluation finds a process that works.
    source = "{% for c in text %}{{ c }}.{% endfor %}"
    arguments = {"source": source, "field": "prompt", "values": {"text": "ab"}}
    assert await ours.evaluate("template", **arguments) == "a.b."


def test_a_process_that_somebody_kills_costs_no_record(ours):
    assert ours.evaluate_blocking("answer", schema="{}", answer="1") == 1
    (process,) = ours._idle
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.wait()
    assert ours.evaluate_blocking("answer", schema="{}", answer="2") == 2


def test_a_process_that_does_not_start_is_no_fault_of_the_record(ours, monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EvaluatorUnavailable, match="exit code 1 before it had answered"):
        ours.evaluate_blocking("answer", schema="{}", answer="1")


def test_an_evaluating_process_holds_no_key_and_imports_no_client(monkeypatch, ours):
    monkeypatch.setenv("BETA_KEY", "sk-secret")
    assert ours.evaluate_blocking("answer", schema="{}", answer="1") == 1
    pid = ours._idle[0]._process.pid
    assert b"sk-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    script = (
        "import sys, forebay.workers.evaluation.process,"
        " forebay.workers.evaluation.templates, forebay.workers.evaluation.answers,"
        " forebay.workers.evaluation.documents, forebay.workers.evaluation.yaml_loader\n"
        "print(*(n for n in ('redis', 'pydantic', 'httpx2', 'arq') if n in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_a_forked_child_has_an_evaluator_of_its_own():
    mine = evaluator()
    assert mine.evaluate_blocking("answer", schema="{}", answer="1") == 1
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - in the child
        code = 1
        try:
            is_other = evaluator() is not mine
            value = evaluator().evaluate_blocking("answer", schema="{}", answer="2")
            evaluator().close()
            mine.close()
            code = 0 if is_other and value == 2 else 2
        finally:
            os._exit(code)
    os.close(writing)
    os.close(reading)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert mine.evaluate_blocking("answer", schema="{}", answer="3") == 3


def test_threads_share_the_processes(ours):
    values: list[int] = []

    def ask(number: int) -> None:
        values.append(ours.evaluate_blocking("answer", schema="{}", answer=str(number)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values) == list(range(8))
