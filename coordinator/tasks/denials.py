"""Errors and reasons for a pool's refusals and denials (design 02, *Tasks*; design 04)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from forebay.contracts.errors import CoordinatorError
from forebay.contracts.tasks import (
    SchedulableTask,
    TaskAdmissionDenied,
    TaskAdmissionError,
    TaskDenialReason,
)


def check_accepted(terms: Sequence[Any], what: str, item: SchedulableTask | None = None) -> bool:
    """Return whether a submitted task was new; raise if it was refused.

    Args:
        terms: the result of a submit.
        what: what was submitted, for the message.
        item: the task, where it is one.

    Raises:
        TaskAdmissionError: it was refused.
    """
    match terms:
        case ["accepted", *_]:
            return True
        case ["known"]:
            return False
        case ["refused", str(code), str(detail)]:
            reason, says = _refusal(code, unquote(detail))
            denied = None
            if item is not None:
                diagnostics = {"code": code, "detail": unquote(detail)}
                denied = TaskAdmissionDenied(item=item, reason=reason, diagnostics=diagnostics)
            raise TaskAdmissionError(code, f"{what} {says}", denied)
        case _:
            raise CoordinatorError(f"{what} was answered with {terms!r}; please report this.")


def _refusal(code: str, detail: str) -> tuple[TaskDenialReason, str]:
    """Return a refusal's rule and the end of its sentence."""
    match code:
        case "unknown_resource":
            return TaskDenialReason.NEVER_FITS, (
                f"asks for resource {detail!r}, which this pool does not have; set a limit for it"
                " first (set_limit), or ask for another."
            )
        case "never_fits":
            return TaskDenialReason.NEVER_FITS, (
                f"asks for more of {detail!r} than its limit; ask for less or raise the limit."
            )
        case _:
            return TaskDenialReason.SHUTDOWN, (
                "was not taken, as the pool is draining; submit to another pool, or open it again."
            )


def decode_reasons(counted: Mapping[str, int] | Sequence[Any]) -> dict[TaskDenialReason, int]:
    """Return denial reasons with their counts; Lua writes an empty table as a list."""
    return {TaskDenialReason(reason): int(count) for reason, count in dict(counted).items()}
