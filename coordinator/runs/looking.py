"""Reads the runs of a pool without driving or changing them (design 05, *Drivers*)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from redis.exceptions import RedisError

from forebay.contracts.run_use import ColumnUse
from forebay.contracts.runs import RunSpec
from forebay.coordinator.keys import encode, pool_shard
from forebay.coordinator.runs.use import decode_use
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server_connection import ServerConnection

_COUNTS: Final = ("done", "dropped", "open", "unwritten", "written")
_TEXTS: Final = ("driver", "owner", "begun", "refused", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLook:
    """A run at one instant.

    Attributes:
        spec: what it was submitted with.
        captured_at: server time in seconds.
        done: whole records.
        dropped: records given up with a reason.
        open: row groups that have records missing.
        unwritten: row groups that wait for a driver to write them.
        written: row groups whose records are on disk.
        driver: the member that drives it and has a listener; None where there is none.
        owner: host and process id of who drove it last; None where that was not said.
        begun_at: server time in seconds of its first driver; None where that was not said.
        problem: why no worker makes it, or why it stopped; None where it goes on.
        columns: what each column has used, by its first output, in the order of the workflow.
    """

    spec: RunSpec
    captured_at: float
    done: int
    dropped: int
    open: int
    unwritten: int
    written: int
    driver: str | None
    owner: str | None
    begun_at: float | None
    problem: str | None
    columns: Mapping[str, ColumnUse]

    @property
    def state(self) -> str:
        """One word: ``running``, ``unattended`` or ``stopped``."""
        if self.problem is not None:
            return "stopped"
        return "running" if self.driver else "unattended"


class RunReader:
    """Looks at the runs of one pool.

    Args:
        connection: connection to the pool's server; left open.
        pool: name of the task pool.
    """

    def __init__(self, connection: ServerConnection, pool: str) -> None:
        self._client: Any = connection.client  # see ServerConnection.client
        self._address = connection.address
        self._keys = pool_shard(pool)

    async def ids(self) -> list[str]:
        """Return the runs that did not end, by name.

        Raises:
            CoordinatorError: the server could not be used.
        """
        try:
            names = await self._client.hkeys(self._keys["runs"])
        except (RedisError, OSError) as error:
            raise connection_error(error, self._address, "reading runs") from error
        return sorted(unquote(name.decode()) for name in names if b"\0" not in name)

    async def spec(self, run_id: str) -> RunSpec | None:
        """Return the specification of a run; None where the pool has no such run.

        Raises:
            CoordinatorError: the server could not be used.
        """
        try:
            text = await self._client.hget(self._keys["runs"], f"{encode(run_id)}\0workflow")
        except (RedisError, OSError) as error:
            raise connection_error(error, self._address, "reading a run") from error
        return None if text is None else RunSpec.model_validate_json(text)

    async def look(self, spec: RunSpec) -> RunLook | None:
        """Return a run at one instant; None where it is over.

        Args:
            spec: as `spec` returned it, which never changes.

        Raises:
            CoordinatorError: the server could not be used.
        """
        run = encode(spec.run_id)
        columns = spec.workflow.columns
        names = [*_COUNTS, *_TEXTS]
        names += [f"made\0{index}" for index in range(1, len(columns) + 1)]
        names += [f"used\0{index}" for index in range(1, len(columns) + 1)]
        try:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.hexists(self._keys["runs"], run)
                pipe.time()
                pipe.hmget(self._keys["progress"], [f"{run}\0{name}" for name in names])
                is_there, (seconds, microseconds), found = await pipe.execute()
            if not is_there:
                return None
            values = dict(zip(names, found, strict=True))
            driver = await self._listened_to(values["driver"])
        except (RedisError, OSError) as error:
            raise connection_error(error, self._address, "reading a run") from error
        return RunLook(
            spec=spec,
            captured_at=seconds + microseconds / 1e6,
            **{name: int(values[name] or 0) for name in _COUNTS},
            driver=driver,
            owner=_text(values["owner"]),
            begun_at=None if values["begun"] is None else int(values["begun"]) / 1e6,
            problem=problem_of(values),
            columns={
                column.outputs[0]: decode_use(values[f"made\0{index}"], values[f"used\0{index}"])
                for index, column in enumerate(columns, 1)
            },
        )

    async def _listened_to(self, driver: bytes | None) -> str | None:
        """Return a run's driver if its process still listens, else None."""
        if driver is None:
            return None
        channel = self._keys.wake_channel(driver.decode())
        ((_channel, listeners),) = await self._client.pubsub_numsub(channel)
        return driver.decode() if listeners else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def problem_of(values: Mapping[str, bytes | None]) -> str | None:
    """Return the reason for which a run stopped or workers refuse it, None without one."""
    if values["stopped"] is not None:
        column, failed, finished, reason = values["stopped"].decode().split("\0", 3)
        return (
            f"{failed} of the last {finished} finished cells of column {unquote(column)!r} failed,"
            f" the last one with: {reason}"
        )
    return _text(values["refused"])
