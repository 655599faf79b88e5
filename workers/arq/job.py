"""arq's own ``Job(job_id, pool)`` on a Forebay pool.

arq's constructor takes ``arq:queue`` and pickle where it is not told a queue and a deserializer,
also for a pool that has others: a job of a pool would be ``not_found`` and its result unreadable.
Only the constructor knows these defaults, so it is replaced by one that asks a pool for its own
(docs/arq.md). Of any other connection it does what it did.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from arq.constants import default_queue_name
from arq.jobs import Deserializer, Job

from forebay.contracts.errors import ConfigurationError

_init: Final = Job.__init__


@functools.wraps(_init)
def _init_on_pool(
    self: Job,
    job_id: str,
    redis: Any,
    _queue_name: str = default_queue_name,
    _deserializer: Deserializer | None = None,
) -> None:
    if getattr(redis, "is_forebay_pool", None) is True:
        if _queue_name == default_queue_name:
            _queue_name = redis.default_queue_name
        if _deserializer not in {None, redis.job_deserializer}:
            raise ConfigurationError(
                f"job {job_id!r} is given a _deserializer, and a pool reads its jobs by its own;"
                " leave it out, and name the pool's: create_pool(url, serializer=...)."
            )
        _deserializer = redis.job_deserializer
    _init(self, job_id, redis, _queue_name, _deserializer)


def find_jobs_on_pools() -> None:
    """Patch ``arq.jobs.Job`` to take queue and deserializer from a pool."""
    if not hasattr(Job.__init__, "__wrapped__"):
        Job.__init__ = _init_on_pool  # type: ignore[method-assign]
