"""The operations of a call whose membership ended before the shard carried it out.

Rules: design 06, *Exactly once*.
"""

from __future__ import annotations

from collections.abc import Sequence

from forebay.coordinator.shard.backlog import Pending
from forebay.coordinator.shard.batches import sent
from forebay.coordinator.shard.operation import ENDED
from forebay.coordinator.supervision import Guard


def left_by_membership(operations: Sequence[Pending], guard: Guard) -> list[Pending]:
    """Return the operations that are sent again under the next membership; finish the others.

    Args:
        operations: those of a call that was refused with NOMEMBER; releases among them finish as
            ``stale_lease``, and what does not outlive a membership as `ENDED`.
        guard: logs what their callers raise.
    """
    again = []
    for pending in operations:
        operation, stale = sent(pending, ("stale_lease",), ())
        if pending.is_given_up:
            continue
        if operation.is_release:
            guard.call(pending.on_outcome, operation.decode(stale))
        elif operation.outlives_membership:
            again.append(pending)
        else:
            guard.call(pending.on_outcome, ENDED)
    return again
