"""What a job counts that goes back into the queue (design 04, *Losses*)."""

from __future__ import annotations

from contextvars import Context
from types import SimpleNamespace

import pytest

from forebay.workers.arq.cell_jobs import lease_of_job
from forebay.workers.arq.job_ends import JobEnds

LEASE = SimpleNamespace(lease_id="t~1")


@pytest.mark.parametrize(
    ("notes", "counts"),
    [((), "nothing"), (("begun",), "try"), (("begun", "cancelled"), "loss")],
    ids=["cancelled before its first step", "by itself", "cancelled by another"],
)
def test_a_job_that_goes_back_counts_what_befell_it(notes, counts):
    ends = JobEnds()
    context = Context()
    context.run(lease_of_job.set, LEASE)
    for note in notes:
        context.run(getattr(ends, f"note_{note}"))
    assert ends.put_off(LEASE, None, None).counts == counts


def test_what_a_stop_cuts_off_counts_nothing():
    ends = JobEnds()
    context = Context()
    context.run(lease_of_job.set, LEASE)
    context.run(ends.note_begun)
    context.run(ends.note_cancelled)
    ends.is_stopping = True
    assert ends.put_off(LEASE, None, None).counts == "nothing"
