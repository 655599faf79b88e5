"""The progress that `forebay run` prints."""

from __future__ import annotations

import pytest

from forebay.commands import progress
from forebay.contracts.runs import RunProgress


def progress_of(done: int, dropped: int = 0) -> RunProgress:
    return RunProgress(
        records_done=done,
        records_dropped=dropped,
        row_groups_open=1,
        row_groups_written=0,
        ready_to_write=(),
    )


def test_progress_tells_dropped_records_and_a_rate_without_what_was_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = progress.Progress(100, is_begun=True)
    for at, done, dropped in ((1.0, 50, 0), (11.0, 60, 12)):
        now[0] = at
        shown.show(progress_of(done, dropped))
    assert capsys.readouterr().err.splitlines() == [
        "      1 s  50/100 records    0.0/s  no record yet  open row groups 1",
        "     11 s  72/100 records    2.0/s  14 s left  12 dropped  open row groups 1",
    ]
