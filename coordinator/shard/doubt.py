"""Error replies that may come from another version's function code (ADR 0006)."""

from __future__ import annotations

from typing import Any

from redis.exceptions import ResponseError

from forebay.coordinator.scripts.composing import Script
from forebay.coordinator.server.link import Link
from forebay.coordinator.server.refusals import is_passing, may_be_of_other_code


class Doubt:
    """The error reply of a batch script whose function may hold other code.

    Such a reply is kept until the code was read: it counts if the code is this version's.

    Args:
        link: the connection to the server.
        batch: the shard's batch script.
    """

    def __init__(self, link: Link, batch: Script) -> None:
        self._link = link
        self._batch = batch
        self._kept: tuple[ResponseError, str] | None = None  # an error, and of which function

    def is_refusal(self, reply: Any) -> bool:
        """Whether an error reply is the script's refusal; an uncertain one is kept."""
        is_error = isinstance(reply, ResponseError)
        if is_error and not may_be_of_other_code(reply):
            return not is_passing(reply)
        self._link.node.libraries.doubt()
        if is_error and not is_passing(reply):
            self._kept = reply, self._function
        return False

    def resolve(self) -> ResponseError | None:
        """Return the kept reply if the function's code proved to be this version's."""
        kept, self._kept = self._kept, None
        if kept is None or kept[1] != self._function:
            return None
        return kept[0]

    @property
    def _function(self) -> str:
        return self._link.node.libraries.function(self._batch)
