"""The ten questions of docs/operators.md: each command as it stands there, on a live server.

Names are those of this scene. The headings and the lines of counts that the page prints must stand
in the real output, too; numbers are masked in both.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.contract.test_explain_command import forebay
from tests.contract.test_ops import busy
from tests.contract.test_replay import recorded
from tests.e2e.test_redis_cli import Operator, operator

__all__ = ["operator"]  # the fixture

PAGE = (Path(__file__).parents[2] / "docs/operators.md").read_text()
BLOCKS = re.findall(r"^## (\d+)\. .*?^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NAMES = {
    r"rq:[a-z]+/[\w.-]+": "rq:p/m",
    r"(?<=explain )(openai|groq)/[\w.-]+": "p/m",
    r"\bpool:default\b": "pool:mails",
    r"\btriage2-[\w:]+": "t1",
}
HEADINGS = {
    "1": ["shard members leases waiting last call state"],
    "2": [
        "static cap #, override -, in flight #, leases #, waiters #, members #",
        "overdue: members #, leases #, holds #",
    ],
    "3": ["leases #, members #", "member host pid program leases held for up to expires in"],
    "4": ["ready #, delayed #, parked #, unserved #, suspects #, running #, members #"],
    "5": ["group waiting got in # s share by weight weight"],
    "6": ["ok"],
    "7": [],
    "8": [],
    "9": ["happened replayed cap=#"],
    "10": [],
}
FIRST_WORDS = {
    "7": {"task", "provider/model"},
    "9": {"cap", "calls", "429s,", "until"},
    "10": {
        f"ok {word}" for word in ("version", "role", "memory", "connections", "clock", "shards")
    },
}


def shape(line: str) -> str:
    """Return a line with its numbers masked and one space between its words."""
    verdict = re.compile(
        r"^(ok|wrong|hidden) +(?=\w)"
    )  # of a doctor's finding, which load may change
    return " ".join(re.sub(r"\d+(\.\d+)?", "#", verdict.sub("", line)).split())


def commands_of(block: str) -> list[str]:
    """Return the commands of a block, those after ``or:`` too, with the names of the scene."""
    found = []
    for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
        command, _, other = line.partition("#")
        found.append(command.strip())
        other = other.strip().removeprefix("or: ").strip()
        found += [other] if other.startswith(("forebay", "redis-cli")) else []
    for pattern, name in NAMES.items():
        found = [re.sub(pattern, name, command) for command in found]
    return found


async def test_each_question_of_the_page_is_answered_in_the_printed_form(
    redis_url: str, tmp_path: Path, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, recorded())) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOREBAY_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "100")
    assert [number for number, _block in BLOCKS] == list(HEADINGS)

    async def answer(command: str) -> list[str]:
        if command.startswith("redis-cli"):
            return await operator.type(command)
        ran = await forebay(*shlex.split(command)[1:])
        assert ran.exit_code == 0 or command == "forebay doctor", (command, ran.output)
        return ran.output.splitlines()

    async with busy(redis_url):
        for number, block in BLOCKS:
            commands = commands_of(block)
            assert commands, number
            printed = {shape(line) for line in block.splitlines()}
            answers = {command: await answer(command) for command in commands}
            first = {shape(line) for line in answers[commands[0]]}
            for heading in HEADINGS[number]:
                assert heading in printed, f"the page, question {number}"
                assert heading in first, (number, heading, answers[commands[0]])
            for words in FIRST_WORDS.get(number, ()):
                assert any(line.startswith(shape(words)) for line in printed), (number, words)
                assert any(
                    shape(line).startswith(shape(words))
                    for lines in answers.values()
                    for line in lines
                ), (number, words, answers)
            for command, lines in answers.items():
                assert lines, command
                assert "ERR" not in lines[0], command
