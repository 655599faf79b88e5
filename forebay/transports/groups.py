"""Who asks, as the code around a request says it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from forebay.contracts.checks import check_type
from forebay.contracts.identity import RequestGroupSpec

current_group: ContextVar[RequestGroupSpec | None] = ContextVar(
    "forebay_request_group", default=None
)
"""Who asks, for requests made in this task and its children; goes before a transport's group."""


@contextlib.contextmanager
def asking_as(group: RequestGroupSpec) -> Iterator[None]:
    """Name who asks, for the requests made within the block: a tenant, a run."""
    check_type("group", group, RequestGroupSpec)
    token = current_group.set(group)
    try:
        yield
    finally:
        current_group.reset(token)
