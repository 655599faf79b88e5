"""The policies as a document that runs against those of the model, on random queues.

Rules: design 04, *Policies*.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.contracts.identity import TaskGroupSpec
from forebay.contracts.task_policies import QueueView, TaskAdmissionView
from forebay.contracts.tasks import SchedulableTask, SchedulerResourceRequest
from forebay.coordinator.tasks.policies import (
    BoundedBorrowTaskAdmissionPolicy,
    StrictFairTaskAdmissionPolicy,
    TaskAdmissionPolicy,
)
from tests.property.task_moves import BORROWS, GROUP_LIMITS, WEIGHTS
from tests.property.task_policy_model import Borrow, Head, Strict
from tests.property.task_state_model import full_name, group_key

UNITS = st.integers(0, 4)
ASKS = st.sampled_from(
    [{"submission": 1}, {"submission": 1, "gpu": 1}, {"submission": 2, "gpu": 3, "cpu": 1}]
)
HELD = st.builds(lambda s, g, c: Counter(submission=s, gpu=g, cpu=c), UNITS, UNITS, UNITS)
NAMES = ("a", "b", "c", "d")
HEADS = st.lists(
    st.tuples(ASKS, WEIGHTS, GROUP_LIMITS, st.integers(0, 3), HELD, HELD), min_size=1, max_size=4
)
LIMITS = st.fixed_dictionaries(
    {"submission": st.integers(4, 20), "gpu": st.integers(3, 9), "cpu": st.integers(1, 9)}
)


def views(heads: list[Head], limits: dict[str, int]) -> tuple[QueueView, TaskAdmissionView]:
    """Return what the document looks at, where all heads fit."""
    specs = {
        head.group: TaskGroupSpec(
            key=group_key(name), weight=head.weight, admitted_limit=head.limit
        )
        for name, head in zip(NAMES, heads, strict=False)
    }
    queue = QueueView(
        queued_total=len(heads),
        queued_by_group={head.group: 1 for head in heads},
        demand_by_group={},
        groups=specs,
        first_candidates={head.group: head.asks for head in heads},
        considered=tuple(head.group for head in heads),
        peer_demand={},
    )
    admission = TaskAdmissionView(
        limits=limits,
        available=dict.fromkeys(limits, 99),
        leased={},
        leased_by_group={head.group: head.out for head in heads},
        running_by_group={head.group: head.running for head in heads},
        debt_by_group={head.group: head.debt for head in heads},
    )
    return queue, admission


@settings(deadline=None, max_examples=300)
@given(HEADS, LIMITS, st.one_of(st.none(), BORROWS))
def test_document_says_what_the_design_says(drawn, limits, borrow) -> None:  # type: ignore[no-untyped-def]
    heads = [
        Head(
            group=full_name(name),
            asks=asks,
            weight=weight,
            limit=limit,
            running=running,
            out=out,
            debt=debt,
        )
        for name, (asks, weight, limit, running, out, debt) in zip(NAMES, drawn, strict=False)
    ]
    model = Strict() if borrow is None else Borrow(borrow)
    document: TaskAdmissionPolicy = (
        StrictFairTaskAdmissionPolicy()
        if borrow is None
        else BoundedBorrowTaskAdmissionPolicy(borrow)
    )
    queue, admission = views(heads, limits)
    for head in heads:
        item = SchedulableTask(
            task_id="t",
            payload=b"",
            group=queue.groups[head.group],
            resource_request=SchedulerResourceRequest(amounts=dict(head.asks)),
        )
        verdict = model.verdict(head, heads, limits)
        decision = document.evaluate(item, queue, admission)
        assert decision.allowed == verdict.may_go
        if verdict.may_go and borrow is not None:
            assert decision.diagnostics["borrowed"] == verdict.borrows
