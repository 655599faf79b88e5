"""Runs whose provider refuses for a while, with real processes (design 05)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from tests.support import wait_until
from tests.support_runs import read_records, start_forebay

RECORDS = 400
HEAD = """
name = "two"
buffer_size = 40
output.path = "out.jsonl"
providers.a.base_url = "{a}"
providers.b.base_url = "{b}"
models.first = {{provider = "a", model = "a-big", max_parallel_requests = 8}}
models.second = {{provider = "b", model = "b-big", max_parallel_requests = 8}}
[[columns]]
generator = "seed"
names = ["id"]
path = "seed.csv"
"""
COLUMN = """
[[columns]]
generator = "llm_text"
name = "{model}"
model = "{model}"
prompt = "{{{{{{{{ id }}}}}}}}"
"""
TWO_COLUMNS = HEAD + "".join(COLUMN.format(model=model) for model in ("first", "second"))


@pytest.fixture
def providers() -> Iterator[tuple[MockProviderServer, MockProviderServer]]:
    """A, which refuses all and asks to come again after 20 s, and B, which is well."""
    away = ProviderTruth(concurrency=0, retry_after_seconds=20.0)
    well = ProviderTruth(latency_median_seconds=0.1)
    with MockProviderServer(away) as a, MockProviderServer(well) as b:
        yield a, b


def write_workflow(
    folder: Path, text: str, a: MockProviderServer, b: MockProviderServer, records: int = RECORDS
) -> None:
    (folder / "flow.toml").write_text(text.format(a=a.base_url, b=b.base_url))
    (folder / "seed.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(records)))


@pytest.mark.long
async def test_a_provider_that_is_well_is_used_while_the_other_cools_down(
    providers: tuple[MockProviderServer, MockProviderServer], tmp_path: Path
) -> None:
    a, b = providers
    write_workflow(tmp_path, TWO_COLUMNS, a, b)
    with contextlib.ExitStack() as stack:
        running = start_forebay("run", "flow.toml", "--no-report", cwd=tmp_path)
        stack.callback(running.kill)
        await wait_until(lambda: b.state.counters.ok == RECORDS, timeout=60)
        assert a.state.counters.ok == 0, "B is through, and A has served nobody"
        a.change_truth(concurrency=None)
        out, said = await asyncio.to_thread(running.communicate, timeout=90)

    assert running.returncode == 0, said
    assert f"{RECORDS} of {RECORDS} records written" in out
    rows = read_records(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == [str(number) for number in range(RECORDS)]
    assert (a.state.counters.ok, b.state.counters.ok) == (RECORDS, RECORDS)


@pytest.mark.long
async def test_rate_limits_drop_no_record_however_often_they_come(
    providers: tuple[MockProviderServer, MockProviderServer], tmp_path: Path
) -> None:
    a, b = providers
    a.change_truth(retry_after_seconds=1.5)
    write_workflow(tmp_path, HEAD + COLUMN.format(model="first"), a, b, records=12)
    with contextlib.ExitStack() as stack:
        running = start_forebay("run", "flow.toml", "--no-report", cwd=tmp_path)
        stack.callback(running.kill)
        await wait_until(lambda: a.state.counters.refused >= 12, timeout=60)
        a.change_truth(concurrency=None)
        out, said = await asyncio.to_thread(running.communicate, timeout=60)

    assert running.returncode == 0, said
    assert "12 of 12 records written" in out
