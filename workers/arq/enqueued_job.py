"""The handle of a job that this process enqueued."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from arq.connections import ArqRedis
from arq.jobs import Job, ResultNotFound

from forebay.contracts.errors import JobLost

ReadGeneration = Callable[[], Awaitable[tuple[str | None, bytes | None]]]

LOSSES: Final = frozenset({b"lost", b"restarted"})
"""Reasons of a rebuild, as of ``lua/lib/shard/recovery``, after which a job may have no trace."""


class EnqueuedJob(Job):
    """arq's ``Job``; distinguishes a lost job from one that never existed.

    Args:
        job_id: as it was enqueued.
        redis: the pool.
        function: the function's name.
        generation: the pool's, when it took the job; None where that is not known.
        read_generation: reads the pool's present one, and why it was last rebuilt.
    """

    def __init__(
        self,
        job_id: str,
        redis: ArqRedis,
        function: str,
        generation: str | None,
        read_generation: ReadGeneration,
    ) -> None:
        super().__init__(job_id, redis)
        self._function = function
        self._generation = generation
        self._read_generation = read_generation

    async def result(self, timeout: float | None = None, **how: Any) -> Any:
        """Return the job's result, as arq's own does.

        Raises:
            JobLost: the server has lost its state since the job was enqueued, and nothing of the
                job is left.
            ResultNotFound: nothing of the job is left, as where its result has expired.
        """
        try:
            return await super().result(timeout, **how)
        except ResultNotFound as error:
            if self._generation is None or not await self._has_lost_state():
                raise
            raise JobLost(self.job_id, self._function, is_result_lost=True) from error

    async def _has_lost_state(self) -> bool:
        generation, reason = await self._read_generation()
        is_gone = generation is None and reason is None
        return is_gone or (generation != self._generation and reason in LOSSES)
