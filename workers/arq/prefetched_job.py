"""The first reads of arq's ``run_job``, answered from the reply of the admission."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefetchedJob:
    """The values that arq's ``run_job`` reads first, from the reply of the admission.

    Attributes:
        payload: the job.
        job_try: which try this is.
        is_aborted: whether it is to be aborted.
    """

    payload: bytes | None
    job_try: int
    is_aborted: bool


prefetched_job: ContextVar[PrefetchedJob | None] = ContextVar(
    "forebay_prefetched_job", default=None
)
"""The prefetched values of the running job, for the first pipeline of ``run_job``."""


class PrefetchedJobPipeline:
    """Replaces the first pipeline of ``run_job``; sends no command."""

    def __init__(self, job: PrefetchedJob) -> None:
        self._job = job
        self._answers: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    def get(self, _key: str) -> None:
        """Read the job."""
        self._answers.append(self._job.payload)

    def incr(self, _key: str) -> None:
        """Count this try."""
        self._answers.append(self._job.job_try)

    def expire(self, _key: str, _seconds: int) -> None:
        """Let the count of tries expire, which the task's record holds."""
        self._answers.append(True)

    def zrem(self, _key: str, _job_id: str) -> None:
        """Take the request to abort it, if there is one."""
        self._answers.append(int(self._job.is_aborted))

    async def execute(self) -> list[Any]:
        """Return the answers, in the order of the calls."""
        return self._answers
