"""`forebay top`: one look as text and as JSON, the rates, the keys, and what a name may hold."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
import termios
from typing import Any

import pytest
from rich.console import Console

from forebay.commands import top as top_module
from forebay.commands.top_live import Cursor
from forebay.commands.top_looks import Looks
from forebay.commands.top_rows import Rates, Row, with_shares
from forebay.commands.top_view import Scene, picture_of, shared_lines
from forebay.contracts.errors import ConfigurationError, CoordinatorError
from forebay.ops.fleet import FleetReader
from tests.contract.test_explain_command import forebay
from tests.contract.test_ops import TENANT, busy


async def test_top_shows_the_fleet_as_text_and_as_json(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_module, "EVERY_SECONDS", 0.01)
    empty = await forebay("top", "--url", redis_url)
    assert "no provider/model or pool has been used on this server yet" in empty.output

    async with busy(redis_url):
        monkeypatch.setenv("COLUMNS", "80")
        shown = await forebay("top", "--url", redis_url)
        assert shown.exit_code == 0, shown.exception
        lines = shown.output.splitlines()
        assert "1 in flight, 3 waiting" in lines[0]
        (window,) = [line.split() for line in lines if line.startswith("p/m chat")]
        assert window[2:] == ["1/1", "1", "3", "0", "0", "-"]
        (pool,) = [line for line in lines if line.startswith("pool:mails")]
        assert pool.split() == ["pool:mails", "open", "0", "1", "local/g", "-", "(100%)"]
        assert "\x1b" not in shown.output
        assert max(map(len, lines)) <= 80

        opened = await forebay("top", "--only", "p/m", "--url", redis_url)
        assert TENANT in opened.output
        assert "request_rate_limited" in opened.output
        opened = await forebay("top", "--only", "pool:mails", "--url", redis_url)
        assert "running 0   queued 1" in opened.output

        found = json.loads((await forebay("top", "--json", "--url", redis_url)).output)
        assert (found["windows"][0]["waiting"], found["windows"][0]["calls_per_second"]) == (3, 0)
        (group,) = found["pools"][0]["groups"]
        assert (group["share"], group["weight_share"]) == (None, 1)
        (member,) = found["members"]
        assert (member["models"], member["leases"], member["waiting"]) == (["p/m"], 1, 3)

        missing = await forebay("top", "--only", "p/x", "--url", redis_url)
        assert isinstance(missing.exception, ConfigurationError)
        assert "nothing is called 'p/x'" in str(missing.exception)
        assert "of: p/m, pool:mails" in str(missing.exception)

        await keys_choose_open_and_sort(redis_url)
        assert "> p/m chat" in await in_a_terminal(redis_url)


async def keys_choose_open_and_sort(url: str) -> None:
    async with Looks.open(url, sort="waiting", only=None) as looks:
        await looks.look()
        cursor = Cursor(looks)
        assert "> p/m chat" not in await drawn(looks, None)
        cursor.settle()
        assert "> p/m chat" in await drawn(looks, cursor.selected)
        cursor.press(b"\x1b[B\x1b[B\r")
        assert looks.opened == "pool:mails"
        assert "policy strict" in await drawn(looks, cursor.selected)
        cursor.press(b"\x1bks\r")
        assert (looks.opened, looks.sort, cursor.is_over) == ("p/m", "in-flight", False)
        cursor.press(b"q")
        assert cursor.is_over


async def in_a_terminal(url: str) -> str:
    """Start the command in a terminal of its own, quit by key; return what it drew."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    before = termios.tcgetattr(theirs)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "forebay", "top", "--url", url),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
    )
    seen, screen = asyncio.Event(), bytearray()

    def read() -> None:
        screen.extend(os.read(ours, 65_536))
        if b"p/m chat" in screen:
            seen.set()

    asyncio.get_running_loop().add_reader(ours, read)
    try:
        await asyncio.wait_for(seen.wait(), 30)
        os.write(ours, b"q")
        assert await asyncio.wait_for(process.wait(), 30) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
        os.close(theirs)
    assert b"\x1b[31m" not in screen
    return screen.decode()


async def drawn(looks: Looks, selected: str | None) -> str:
    console = Console(width=80, height=24, color_system=None)
    with console.capture() as captured:
        console.print(await looks.picture(width=80, height=24, selected=selected))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert "q: quit" in lines[1]
    return "\n".join(lines)


async def test_a_server_that_went_away_is_named_above_the_last_look(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_given: Any, **_named: Any) -> None:
        raise CoordinatorError("no [red]answer\x1b[2J")

    async with busy(redis_url), Looks.open(redis_url, sort="name", only=None) as looks:
        await looks.look()
        with monkeypatch.context() as away:
            away.setattr(FleetReader, "look", refuse)
            await looks.look_or_note()
        shown = await drawn(looks, None)
        assert "cannot look: no [red]answer\\x1b[2J" in shown
        assert "p/m chat" in shown
        await looks.look_or_note()
        assert "cannot look" not in await drawn(looks, None)


def test_rates_are_of_the_last_seconds_and_begin_anew_after_a_reset() -> None:
    rates = Rates()

    def after(at: float, granted: int, refused: int) -> Any:
        row = {"name": "p/m chat", "granted": granted, "rate_limited": refused}
        rates.add(at, [row])
        return row["calls_per_second"], row["rate_limits_per_minute"]

    assert after(100, 10, 0) == (None, None)
    assert after(102, 30, 1) == (10, 30)
    assert after(110, 30, 1) == (0, 6)
    assert after(112, 40, 1) == (5, 5)
    assert after(170, 40, 1) == (0, 0)
    assert after(171, 2, 0) == (None, None)
    rates.add(172, [])
    assert after(173, 9, 0) == (None, None)


def test_each_table_keeps_a_line_and_the_longest_give_way() -> None:
    assert shared_lines([40, 3, 0, 5], 14) == [6, 3, 0, 5]
    assert shared_lines([2, 2, 2, 2], 100) == [2, 2, 2, 2]
    assert shared_lines([9, 9, 9, 9], 0) == [1, 1, 1, 1]


def test_a_group_stands_with_its_share_of_the_running_tasks_and_of_the_weights() -> None:
    groups = [
        {"group": name, "weight": weight, "waiting": 1, "running": running}
        for name, weight, running in (("atlas", 3.0, 1), ("[red]b", 1.0, 3), ("gone", None, 0))
    ]
    pool: Row = {"pool": "x", "state": "open", "running": 4, "queued": 2, "groups": groups}
    rows: Row = {"at": 0.0, "windows": [], "members": [], "runs": [], "problems": [], "unread": 2}
    rows["pools"] = [{"name": "pool:x", **with_shares({**pool, "group_count": 5})}]
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(picture_of(Scene(rows=rows, sort="name", width=120)))
    shown = captured.get()
    assert "atlas 25% (75%), [red]b 75% (25%), gone 0% (-), +2" in shown
    assert "2 further shards are not read" in shown


def test_a_run_stands_with_its_tenant_its_progress_and_its_age() -> None:
    run = {"run": "run-7", "tenant": "[red]atlas", "state": "running", "done": 7, "dropped": 2}
    run |= {"records": 60, "calls": 31, "age_seconds": 90.0}
    begun: Row = {**run, "run": "run-8", "age_seconds": None}
    rows: Row = {"at": 0.0, "windows": [], "members": [], "pools": [], "problems": [], "unread": 0}
    rows["runs"] = [run, begun]
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(picture_of(Scene(rows=rows, sort="name", width=80)))
    lines = [line.split() for line in captured.get().splitlines()]
    assert ["run", "tenant", "state", "done", "calls", "age"] in lines
    assert ["run-7", "[red]atlas", "running", "9/60", "31", "2", "m"] in lines
    assert ["run-8", "[red]atlas", "running", "9/60", "31", "-"] in lines
