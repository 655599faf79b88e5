"""A program's connection to a task pool."""

from __future__ import annotations

from typing import Any, Self

from forebay.contracts.settings import MemberSettings
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.workers.arq.pool_redis import ForebayArqRedis
from forebay.workers.arq.serialization import JSON, JobSerializer, SerializerName, serializer_of
from forebay.workers.arq.settings import check_create_pool


class JobPool(ForebayArqRedis):
    """A program's connection to a pool, for submitting; to be closed with ``aclose``.

    Args:
        connection: closed with it.
        pool: the pool's name.
        serializer: of jobs and results.
        expires_extra_ms: as that of `ForebayArqRedis`.
    """

    def __init__(
        self,
        connection: ServerConnection,
        pool: str,
        serializer: JobSerializer = JSON,
        expires_extra_ms: int | None = None,
    ) -> None:
        self._connection = connection
        self.tasks = TaskAdmissionController(connection, pool)
        super().__init__(self.tasks, connection, serializer, expires_extra_ms=expires_extra_ms)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: ARG002
        """Leave the fleet and close the connections."""
        await self.tasks.close()
        await self._connection.close()


async def create_pool(
    url: str,
    *,
    pool: str = "default",
    serializer: SerializerName = "json",
    settings: MemberSettings | None = None,
    expires_extra_ms: int | None = None,
    **arqs: Any,
) -> JobPool:
    """Connect a program to a task pool; the result has the methods of arq's pool.

    Args:
        url: ``embedded://``, ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://``.
        pool: the pool's name.
        serializer: of the pool's jobs and results.
        settings: how the process takes part in the fleet.
        expires_extra_ms: how long after its time a job expires that says no ``_expires``; by
            default a job waits until it is run.
        arqs: arguments of arq's own ``create_pool``, which are refused by name.

    Returns:
        The pool, connected; close it with ``aclose`` or leave its ``async with`` block.

    Raises:
        ConfigurationError, CoordinatorError: an argument is wrong, or the server cannot be used.

    Example:
        >>> async def main() -> None:
        ...     async with await forebay.create_pool(url, pool="app") as pool:
        ...         job = await pool.enqueue_job("enrich", 7, _group="atlas")
        ...         print((await job.status()).value, len(await pool.queued_jobs()))
        >>> asyncio.run(main())
        queued 1
    """
    check_create_pool(arqs, create_pool)
    chosen = serializer_of(serializer)
    connection = await ServerConnection.open(url, settings)
    try:
        return JobPool(connection, pool, chosen, expires_extra_ms)
    except BaseException:
        await connection.close()
        raise
