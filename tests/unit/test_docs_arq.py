"""docs/arq.md names whatever arq and the command offer, so that nothing of it goes unsaid."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import arq.connections
import click
import pytest
from arq.cli import cli as arqs_command
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker

from forebay.commands.worker import worker_command
from forebay.workers.arq.log import EVENTS
from forebay.workers.arq.settings import REFUSED, REFUSED_OF_CREATE_POOL, WORKING

TEXT = (Path(__file__).parents[2] / "docs" / "arq.md").read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
NAMES = {
    name for quoted in re.findall(r"`([^`\n]+)`", PROSE) for name in re.findall(r"\w+", quoted)
}
OPTIONS = set(re.findall(r"--[a-z][\w-]+", TEXT))


def rows(heading):
    """Return the rows of the first table of a section, as cells."""
    section = TEXT.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]


@pytest.mark.parametrize(
    "names",
    [
        {*inspect.signature(Worker).parameters},
        {*inspect.signature(arq.connections.create_pool).parameters},
        {field.name for field in fields(RedisSettings)},
        {
            name
            for name in inspect.signature(ArqRedis.enqueue_job).parameters
            if name.startswith("_")
        },
        {known[0] for known in EVENTS.values() if known is not None},
    ],
    ids=["worker", "create_pool", "redis_settings", "enqueue_job", "events"],
)
def test_each_name_of_arqs_is_in_the_page(names):
    assert sorted(names - NAMES) == []


def test_the_page_says_of_each_setting_what_the_code_does():
    said = {
        name: words for cell, words in rows("Settings") for name in re.findall(r"`(\w+)`", cell)
    }
    assert said.keys() == {*inspect.signature(Worker).parameters}
    refused = {name for name, words in said.items() if words.startswith("refused")}
    assert refused == {*REFUSED, "queue_name"}
    assert WORKING | {"redis_settings"} == said.keys() - refused


def test_the_page_tells_of_each_argument_that_create_pool_refuses():
    assert set(REFUSED_OF_CREATE_POOL) <= NAMES


def options_of(command):
    return {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


def test_the_command_has_each_option_of_arqs_but_the_version_that_every_command_has():
    assert options_of(arqs_command) - options_of(worker_command) == {"-V", "--version"}
    assert {option for option in options_of(arqs_command) if len(option) > 2} - {
        "--version"
    } <= OPTIONS


def test_each_option_of_the_page_is_one_of_the_command():
    assert options_of(worker_command) >= OPTIONS


def test_each_difference_has_both_sides():
    table = rows("What stays different, on purpose")
    assert len(table) > 20
    assert all(len(row) >= 3 and row[1] and row[2] for row in table)
