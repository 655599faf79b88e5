"""Answer the first reads of arq's ``run_job`` from the lease's payload, without a call."""

from __future__ import annotations

from arq.constants import job_key_prefix

from forebay.contracts.tasks import TaskAdmissionLease
from forebay.workers.arq.cell_jobs import CellJobs
from forebay.workers.arq.opening import Opening
from forebay.workers.arq.pool_redis import ForebayArqRedis


class JobOpenings:
    """Finds them.

    Args:
        redis: where arq's keys are.
        cells: the jobs of tasks of runs, which have no payload of their own.
    """

    def __init__(self, redis: ForebayArqRedis, cells: CellJobs) -> None:
        self._redis = redis
        self._cells = cells

    async def of(self, lease: TaskAdmissionLease) -> Opening:
        """Return the job, read and checked, its try, and whether it is to be aborted.

        Raises:
            JobUnreadable: what is stored is no job of this pool.
            RedisError: the server could not be used.
        """
        item = lease.item
        if item.cell is not None:
            payload: bytes | None = self._cells.payload(item)
        elif item.payload is not None:
            payload = self._redis.stored.payload(item.task_id, item.payload)
        else:  # the reply that brought it was lost, and its repeat tells of the lease alone
            payload = await self._redis.get(job_key_prefix + item.task_id)
        return Opening(payload=payload, job_try=item.job_try, is_aborted=item.is_aborted)
