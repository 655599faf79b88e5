"""Successive looks of `forebay top` at a server, and the picture of the last one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from forebay.commands.top_rows import POOL_TAG, Rates, member_rows, sorted_windows, top_rows
from forebay.contracts.errors import CoordinatorError
from forebay.contracts.snapshots import GlobalSnapshot
from forebay.coordinator.keys import request_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.ops.fleet import Fleet, FleetReader

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = dict[str, Any]


class Looks:
    """Reads the fleet; keeps the last look, and the counters for the rates.

    Args:
        reader: what looks.
        sort: a key of ``SORTS``.
        only: ``PROVIDER/MODEL`` or ``pool:NAME`` that is opened; None for the whole fleet.

    Attributes:
        sort: the order of the windows; may be set.
        opened: what is opened; may be set.
        error: why the last look failed; None where it succeeded.
    """

    def __init__(self, reader: FleetReader, *, sort: str, only: str | None) -> None:
        self.sort = sort
        self.opened = only
        self.error: str | None = None
        self._reader = reader
        self._rates = Rates()
        self._fleet: Fleet | None = None
        self._rows: Row = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, sort: str, only: str | None) -> AsyncIterator[Self]:
        """Connect for the length of a block, only to read.

        Raises:
            CoordinatorError: the server could not be used.
        """
        async with await ServerConnection.open(url, only_reads=True) as connection:
            yield cls(FleetReader(connection), sort=sort, only=only)

    async def look(self) -> None:
        """Look at the whole fleet.

        Raises:
            CoordinatorError: the server could not be used; the look before stays.
        """
        self._fleet = await self._reader.look(with_events=False)
        self._rows = top_rows(self._fleet, self._rates, sort=self.sort)
        self.error = None

    async def look_or_note(self) -> None:
        """Look; where the server cannot be used, note why in ``error``."""
        try:
            await self.look()
        except CoordinatorError as error:
            self.error = str(error)

    @property
    def names(self) -> list[str]:
        """Names that can be opened: each provider/model, and each pool with ``pool:`` before it."""
        fleet = self._fleet
        if fleet is None:
            return []
        return [*sorted(map(str, fleet.models)), *(POOL_TAG + name for name in sorted(fleet.pools))]

    @property
    def choices(self) -> list[str]:
        """The rows that a cursor may be on, in the order in which they are drawn."""
        rows = self.rows
        return [row["name"] for row in (*rows["windows"], *rows["pools"])]

    @property
    def shard(self) -> GlobalSnapshot | None:
        """The opened provider/model; None where none is opened, or it was never used."""
        models = self._fleet.models if self._fleet is not None else {}
        return next((shard for key, shard in models.items() if str(key) == self.opened), None)

    @property
    def rows(self) -> Row:
        """The last look as ``top_rows`` returns it, of what is opened alone, in its order."""
        rows, only, shard = self._rows, self.opened, self.shard
        windows = sorted_windows(rows["windows"], self.sort)
        if only is None:
            return {**rows, "windows": windows}
        return {
            **rows,
            "windows": [row for row in windows if f"{row['provider']}/{row['model']}" == only],
            "pools": [row for row in rows["pools"] if row["name"] == only],
            "members": member_rows({shard.provider_model: shard}) if shard is not None else [],
            "runs": [row for row in rows["runs"] if POOL_TAG + row["pool"] == only],
        }

    async def picture(
        self, *, width: int, height: int | None = None, selected: str | None = None
    ) -> RenderableType:
        """Return the last look, or what is opened of it, as a picture of rich.

        Args:
            width: columns.
            height: lines of the terminal; None draws all.
            selected: the row that the cursor is on.
        """
        from forebay.commands.top_view import Scene, picture_of, pool_picture, window_picture

        rows = self.rows
        scene = Scene(
            rows=rows,
            sort=self.sort,
            width=width,
            height=height,
            selected=selected if self.opened is None else None,
            error=self.error,
        )
        if (shard := self.shard) is not None:
            return window_picture(scene, shard, await self._events(shard))
        if self.opened is not None and rows["pools"]:
            return pool_picture(scene, rows["pools"][0])
        return picture_of(scene)

    async def _events(self, shard: GlobalSnapshot) -> list[Row]:
        try:
            return await self._reader.last_events(request_shard(shard.provider_model))
        except CoordinatorError:  # the picture says why the next look fails, too
            return []
