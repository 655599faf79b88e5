"""The request group of requests, set by the code around them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from forebay.contracts.checks import check_type
from forebay.contracts.identity import RequestGroupSpec

current_group: ContextVar[RequestGroupSpec | None] = ContextVar(
    "forebay_request_group", default=None
)
"""The group of requests of this task and its children; overrides a transport's group."""


@contextlib.contextmanager
def asking_as(group: RequestGroupSpec) -> Iterator[None]:
    """Set the group, such as a tenant or run, of the requests made within the block.

    Args:
        group: goes before a transport's own ``group``; its weight is set with each request.

    Returns:
        A context manager, for ``with``, in programs with and without an event loop.

    Raises:
        ConfigurationError: on entering, ``group`` is of another type.

    Example:
        >>> from forebay.transports import current_group
        >>> with forebay.asking_as(forebay.RequestGroupSpec(key="atlas")):
        ...     print(current_group.get().key)
        atlas
    """
    check_type("group", group, RequestGroupSpec)
    token = current_group.set(group)
    try:
        yield
    finally:
        current_group.reset(token)
