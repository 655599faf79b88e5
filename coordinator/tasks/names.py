"""Names and amounts of task admission as they stand in keys, signatures and ARGV.

Rules: design 02; design 09.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from forebay.contracts.identity import TaskGroupKey, TaskGroupSpec
from forebay.contracts.tasks import SchedulerResourceRequest
from forebay.coordinator.keys import encode

RESOURCE_SAFE: Final = ":/"
"""Characters that resource names keep unencoded besides letters, digits and ``._-~``."""


def encode_resource(resource: str) -> str:
    """Return a resource's name as it stands in keys and signatures."""
    return quote(resource, safe=RESOURCE_SAFE)


def encode_group(key: TaskGroupKey) -> str:
    """Return a group's name as it stands in keys: kind and identity, each part encoded."""
    return "/".join(encode(part) for part in (key.kind.value, *key.identity))


def signature(request: SchedulerResourceRequest) -> str:
    """Return a request's amounts in one canonical text: sorted, ``name=amount``, comma between."""
    return ",".join(
        f"{encode_resource(resource)}={amount}"
        for resource, amount in sorted(request.amounts.items())
    )


def terms_text(group: TaskGroupSpec, request: SchedulerResourceRequest, function: str) -> str:
    """Return a task's queue terms as its payload stores them, for ``lua/lib/tasks/restore.lua``."""
    limit = "" if group.admitted_limit is None else group.admitted_limit
    terms = (encode_group(group.key), signature(request), encode(function), repr(group.weight))
    return f"forebay|{'|'.join(terms)}|{limit}|"


def parse_signature(text: str) -> dict[str, int]:
    """Parse a signature to its amounts by resource."""
    pairs = (item.rsplit("=", 1) for item in text.split(",") if item)
    return {unquote(name): int(amount) for name, amount in pairs}


def milliseconds(seconds: float) -> int:
    """Return a span that the server can expire by: at least one millisecond."""
    return max(1, round(seconds * 1000))
