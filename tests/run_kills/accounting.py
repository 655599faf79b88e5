"""Compares what the provider served in a run that was killed with what it should have. Pure.

Instants are seconds of the provider's clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from forebay.mock_provider.log import RequestRecord
from forebay.mock_provider.state import CLIENT_LEFT

OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A kill that may have others pay again for calls.

    Attributes:
        at: the instant.
        since: what was finished before this instant stays finished.
        most: calls that may have been in flight; None where all behind ``since`` may be lost.
    """

    at: float
    since: float
    most: int | None


def paid_again(records: Sequence[RequestRecord], losses: Sequence[Loss]) -> tuple[int, list[str]]:
    """Return how many calls were paid for again, and which of them no kill explains.

    A call is paid for when it was answered, or when its caller died before the answer. It is paid
    for again where the same content was paid for earlier; a kill explains it that lies between the
    two, if the earlier one was in flight then, or finished in the time that the kill lost.
    """
    paid = defaultdict[str, list[RequestRecord]](list)
    for record in sorted(records, key=lambda record: record.arrived_at):
        if record.status in {OK, CLIENT_LEFT}:
            paid[record.digest].append(record)
    by_loss, unexplained, again = [0] * len(losses), [], 0
    for calls in paid.values():
        for earlier, later in pairwise(calls):
            again += 1
            causes = [
                place
                for place, loss in enumerate(losses)
                if earlier.arrived_at <= loss.at <= later.arrived_at
                and (loss.most is not None or earlier.finished_at >= loss.since)
            ]
            if not causes:
                unexplained.append(
                    f"asked at {earlier.arrived_at:.3f} s ({earlier.status}) and again at"
                    f" {later.arrived_at:.3f} s: {earlier.digest}"
                )
                continue
            # one without a bound explains any number, so the others are kept for what it does not
            by_loss[min(causes, key=lambda place: (losses[place].most or 0, by_loss[place]))] += 1
    for loss, count in zip(losses, by_loss, strict=True):
        if loss.most is not None and count > loss.most:
            unexplained.append(
                f"{count} calls were paid for again behind the kill at {loss.at:.3f} s, expected"
                f" at most {loss.most}, those in flight"
            )
    return again, unexplained
