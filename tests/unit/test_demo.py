"""What the demo says of a run: goodput at each capacity, and the same calls with back-off alone."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from multiprocessing import Pipe
from pathlib import Path

import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.demo import backoff
from forebay.demo.backoff import BackoffBeside, BackoffRun
from forebay.demo.observations import Look, Observations
from forebay.demo.plot import draw
from forebay.demo.scenario import PROVIDER, beside
from forebay.demo.summary import REFUSED, SERVED, goodput, goodput_by_step, refusals
from forebay.mock_provider.log import RequestRecord, TruthRecord
from tests.support import wait_until


def served(begin: float, end: float) -> RequestRecord:
    return RequestRecord(
        arrived_at=begin,
        finished_at=end,
        path="/v1/chat/completions",
        model="m",
        status=SERVED,
        refused_by=None,
        in_flight_on_arrival=0,
        concurrency_limit=2,
        total_tokens=1,
        user=None,
        tag=None,
    )


def truth(at: float, capacity: int) -> TruthRecord:
    return TruthRecord(at=at, source="live", changes={"concurrency": capacity})


def test_goodput_after_each_step_counts_the_part_of_a_call_that_falls_into_it() -> None:
    seen = Observations(
        requests=[served(1, 3), served(1, 6), served(5, 9)],
        truths=[truth(0, 2), truth(5, 1)],
    )
    before, after = goodput_by_step(seen)
    assert (before.capacity, before.seconds, before.available, before.used) == (2, 4, 8, 6)
    assert (after.capacity, after.seconds, after.available, after.used) == (1, 4, 4, 5)
    assert before.ratio == pytest.approx(6 / 8)
    assert goodput(seen) == (pytest.approx(11 / 12), 8)


def test_capacity_that_no_call_is_left_for_is_not_missed() -> None:
    seen = Observations(requests=[served(0, 4), served(0, 2)], truths=[truth(0, 3)])
    (step,) = goodput_by_step(seen)
    assert (step.available, step.used) == (6, 6)


async def test_with_back_off_alone_calls_are_answered_once_and_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"concurrency": 1, "latency_median_seconds": 0.02, "retry_after_seconds": 0.01}
    quick = PROVIDER.merged(small)
    monkeypatch.setattr(backoff, "PROVIDER", quick)
    ours, theirs = Pipe()
    fleet = BackoffRun(48)
    run = asyncio.create_task(fleet.run(theirs))
    assert await asyncio.to_thread(ours.recv) == "ready"
    for number, answered in ((60, 10), (2, 20), (1, 60)):  # calls, then capacities
        ours.send(number)
        await wait_until(partial(fleet.has_answered, answered))
    ours.send(None)
    seen = await asyncio.to_thread(ours.recv)
    await run
    statuses = [record.status for record in seen.requests]
    assert statuses.count(SERVED) == 60
    assert refusals(seen) == statuses.count(REFUSED) >= 3 * seen.beyond_sdks > 0
    assert [step.changes["concurrency"] for step in seen.truths] == [1, 2, 1]
    look = Look(
        at=1, window=9, in_flight=1, waiting=0, rate_limited=0, succeeded=1, records_done={}
    )
    seen.looks.append(look)
    draw(seen, tmp_path / "beside.png", seen)
    draw(seen, tmp_path / "alone.png")
    assert (tmp_path / "beside.png").stat().st_size > (tmp_path / "alone.png").stat().st_size > 0


def test_fleet_beside_the_demo_is_a_process_that_ends_with_it() -> None:
    fleet = BackoffBeside(callers=2)
    os.kill(fleet.pid, signal.SIGINT)  # as a Ctrl-C: it is for the demo
    fleet.begin(10**6)
    fleet.change(12)
    seen = fleet.finish()
    assert [step.changes["concurrency"] for step in seen.truths] == [24, 12]
    assert refusals(seen) == 0
    with pytest.raises(ConfigurationError, match="--no-backoff leaves it out"):
        fleet.change(24)


class Aside:
    """What goes on for ever; once told to end it waits to be let go."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.may_end = asyncio.Event()

    async def go_on(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.told.set()
            await self.may_end.wait()


async def a_turn() -> None:
    await asyncio.sleep(0)


async def test_a_stop_of_the_demo_is_not_taken_for_the_end_of_what_goes_on_beside_it() -> None:
    aside = Aside()
    whole = asyncio.create_task(beside(a_turn(), aside.go_on()))
    await aside.told.wait()
    whole.cancel()
    aside.may_end.set()
    await asyncio.wait({whole})
    assert whole.cancelled()


async def test_what_goes_on_beside_the_demo_ends_with_work_that_fails() -> None:
    aside = Aside()
    aside.may_end.set()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        await beside(fail(), aside.go_on())
    assert aside.told.is_set()


async def test_what_failed_beside_the_demo_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("no look")

    with pytest.raises(ValueError, match="no look"):
        await beside(a_turn(), fail())
