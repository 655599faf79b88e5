"""Reading the events that scripts write to the streams of shards (docs/events.md)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from redis.exceptions import RedisError, ResponseError

from forebay.contracts.errors import CoordinatorError
from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.runs.looking import RunReader
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server_connection import ServerConnection

POOL_TAG: Final = "pool:"
_PAGE: Final = 500
_MOST_READ: Final = 10_000
"""Entries of one stream that one look reads at most; a stream keeps about 8192."""
_NUMBERS: Final = frozenset(
    {
        *("sequence", "pid", "from", "to", "cap", "at", "limit", "level", "budget", "waiters"),
        *("row_group", "record", "tasks", "times", "leases", "lost_tasks"),
    }
)
"""Fields whose values are numbers where they look like one; so are those that end with ``_us``."""
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")

Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class EventFilter:
    """A filter of events; omitted fields match everything.

    Attributes:
        kinds: patterns of kinds, such as ``request_limit_*``; one must match.
        tenant: whose group or run it must be of.
    """

    kinds: Sequence[str] = ()
    tenant: str | None = None
    _tenants: dict[tuple[str, str], str | None] = field(default_factory=dict)

    async def keeps(self, connection: ServerConnection, row: Row) -> bool:
        """Return whether a row of an event is wanted.

        Raises:
            CoordinatorError: the server could not be used.
        """
        if self.kinds and not any(fnmatch.fnmatchcase(row["kind"], kind) for kind in self.kinds):
            return False
        if self.tenant is None:
            return True
        fields = row["fields"]
        if self.tenant in str(fields.get("group", "")).split("/"):
            return True
        run_id = fields.get("run_id") or str(fields.get("task_id", "")).partition(":")[0]
        return bool(run_id) and await self._tenant_of(connection, row["shard"], run_id)

    async def _tenant_of(self, connection: ServerConnection, tag: str, run_id: str) -> bool:
        """Return whether a run is the wanted tenant's; each run is read once."""
        if not tag.startswith(POOL_TAG):
            return False
        if (tag, run_id) not in self._tenants:
            reader = RunReader(connection, unquote(tag.removeprefix(POOL_TAG)))
            spec = await reader.spec(run_id)
            self._tenants[tag, run_id] = None if spec is None else spec.tenant
        return self._tenants[tag, run_id] == self.tenant


class EventReader:
    """Reads the last events of shards, and those after them; writes nothing.

    Args:
        connection: connection to the server; left open.
        wanted: which events are returned.
    """

    def __init__(self, connection: ServerConnection, wanted: EventFilter) -> None:
        self._connection = connection
        self._wanted = wanted
        self._newest: dict[str, bytes] = {}

    async def read(self, tags: Sequence[str], most: int | None = None) -> list[Row]:
        """Return events of shards, the oldest first; a stream that cannot be read as ``problem``.

        Args:
            tags: of the shards.
            most: the newest of all shards together, at most so many; None for all since the last
                call, of a shard that the last call did not read from its begin.

        Raises:
            CoordinatorError: the server could not be used.
        """
        events: list[Row] = []
        problems: list[Row] = []
        for tag in tags:
            try:
                events += await self._read_one(tag, most)
            except (ResponseError, UnicodeDecodeError) as error:
                key = ShardKeys(tag, ())["events"]
                says = f"the stream {key} cannot be read ({error}); see forebay audit"
                problems.append({"shard": tag, "row": "problem", "says": says})
            except (RedisError, OSError) as error:
                raise connection_error(error, self._connection.address, "reading events") from error
        events.sort(key=lambda row: row["at"])
        return [*problems, *(events[-most:] if most is not None else events)]

    async def _read_one(self, tag: str, most: int | None) -> list[Row]:
        """Return a stream's wanted events, a page after the other, the oldest first."""
        found: list[Row] = []
        first, below, read = self._newest.get(tag), "+", 0
        after = "-" if most is not None or first is None else f"({first.decode()}"
        while read < _MOST_READ and (most is None or len(found) < most):
            page = await self._page(tag, below, after)
            if page and below == "+":
                self._newest[tag] = page[0][0]
            for _entry_id, fields in page:
                row = event_row(tag, fields)
                if await self._wanted.keeps(self._connection, row):
                    found.append(row)
            if len(page) < _PAGE:
                break
            below, read = f"({page[-1][0].decode()}", read + len(page)
        return found[:most][::-1]

    async def _page(self, tag: str, below: str, after: str) -> list[Any]:
        try:
            async with self._connection.deadline():
                key = ShardKeys(tag, ())["events"]
                return list(
                    await self._connection.ask(
                        key,
                        lambda node: node.client.xrevrange(key, below, after, count=_PAGE),
                    )
                )
        except TimeoutError as error:
            raise CoordinatorError(
                f"no answer about {tag} from {self._connection.address} in time; try again."
            ) from error


def event_row(tag: str, fields: Mapping[bytes, bytes]) -> Row:
    """Return an entry of a shard's stream as a row.

    ``at`` is server time in seconds; in ``fields`` numbers are numbers, names as they were given.
    """
    text = {
        name.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
        for name, value in fields.items()
    }
    at_us, kind = text.pop("at_us", ""), text.pop("kind", "?")
    return {
        "shard": tag,
        "row": "event",
        "at": int(at_us) / 1e6 if _INTEGER.fullmatch(at_us) else 0.0,
        "kind": kind,
        "fields": {name: _value(name, value) for name, value in text.items() if value != ""},
    }


def _value(name: str, text: str) -> str | int:
    is_number = name in _NUMBERS or name.endswith("_us")
    return int(text) if is_number and _INTEGER.fullmatch(text) else unquote(text)
