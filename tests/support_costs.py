"""Counting the commands of a script, and what its header promises of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis

from forebay.coordinator.scripts.composing import compose

NOT_OF_SCRIPTS = {"info", "ping", "config|resetstat", "function|load", "fcall", "eval", "eval_ro"}
"""Commands of the tests' own clients and of the call itself."""
FEW, MANY = 20, 2000


class Count:
    """How many commands the server ran in a block, by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, int] = {}

    @property
    def all(self) -> int:
        return sum(self.by_name.values())


@contextmanager
def counted(client: redis.Redis) -> Iterator[Count]:
    count = Count()
    client.config_resetstat()
    yield count
    stats: dict[str, Any] = client.info("commandstats")
    names = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    count.by_name = {name: calls for name, calls in names.items() if name not in NOT_OF_SCRIPTS}


def commands(client: redis.Redis, call: Callable[[], Any]) -> int:
    with counted(client) as count:
        call()
    return count.all


def promised(name: str) -> dict[str, int]:
    """Return the bounds of one call that a header names, each with its first word."""
    text = " ".join(compose(name).header.sections["Cost"].split())
    return {
        word: int(number.replace(",", ""))
        for number, word in re.findall(r"(\d[\d,]*) ([a-z]+)", text)
    }
