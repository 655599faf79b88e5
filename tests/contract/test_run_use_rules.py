"""What a run says of its driver and of what its cells use, on fakeredis and on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from forebay.contracts.run_use import ColumnUse, ModelUse
from forebay.coordinator.runs.use import decode_use, encode_use
from tests.contract.pool_under_clock import Pool, honest_pool
from tests.contract.run_plans import plan, values_of
from tests.contract.shard_under_clock import SERVERS

USE = ColumnUse(
    retried=1,
    busy_seconds=2.5,
    models={
        "p/m": ModelUse(
            calls=2, input_tokens=30, output_tokens=4, rate_limited=1, failed=1, busy_seconds=1.5
        )
    },
)
OTHER = ColumnUse(waited=1, models={"p/other": ModelUse(calls=1)})


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "d")
        yield pool


def field(pool: Pool, name: str) -> bytes | None:
    found: bytes | None = pool.client.hget(pool.keys["progress"], f"run\0{name}")
    return found


def test_the_use_of_a_column_is_the_sum_of_what_its_tasks_have_used(pool: Pool) -> None:
    assert pool.ask("d", "run_submit", "run", plan(), "{}") == ["accepted"]
    for use in (USE, OTHER, USE):
        assert pool.ask("m", "run_used", "run", 2, encode_use(use)) == ["noted"]
    assert decode_use(None, field(pool, "used\0002")) == USE + OTHER + USE
    assert decode_use(None, field(pool, "used\0003")) == ColumnUse()


def test_cells_that_are_made_are_counted_by_column_and_record(pool: Pool) -> None:
    pool.ask("d", "run_submit", "run", plan(records=2), "{}")
    (lease,) = pool.admit(9)
    pool.finish(lease, *values_of(lease), result=b"")
    assert field(pool, "made\0001") == b"2"
    for lease in pool.admit(9):
        pool.finish(lease, *values_of(lease), result=b"")
    assert [field(pool, f"made\000{index}") for index in (2, 3)] == [b"2", b"2"]


def test_the_first_driver_begins_a_runs_time_and_the_last_one_owns_it(pool: Pool) -> None:
    pool.ask("d", "run_submit", "run", plan(), "{}")
    assert pool.ask("d", "run_drive", "run", "one:1") == ["noted"]
    begun = field(pool, "begun")
    pool.pass_time(1)
    assert pool.ask("d", "run_drive", "run", "two:2") == ["noted"]
    assert (field(pool, "begun"), field(pool, "owner")) == (begun, b"two:2")


def test_nothing_that_was_told_of_a_run_outlives_it(pool: Pool) -> None:
    text = json.dumps(json.loads(plan(records=2)))
    pool.ask("d", "run_submit", "run", text, "{}")
    pool.ask("d", "run_drive", "run", "one:1")
    pool.ask("m", "run_used", "run", 2, encode_use(USE))
    assert pool.ask("d", "run_cancel", "run") == ["cancelled"]
    for late in (("run_used", "run", 2, encode_use(USE)), ("run_drive", "run", "one:1")):
        assert pool.ask("m", *late) == ["unknown"]
    assert not pool.client.exists(pool.keys["progress"])
