"""What jobs wait on a pool and which results it has, as arq's client lists them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

from arq.constants import job_key_prefix, result_key_prefix
from arq.jobs import (
    DeserializationError,
    Deserializer,
    JobDef,
    JobResult,
    deserialize_job,
    deserialize_result,
)

from forebay.coordinator.logs import Logger

KEYS_PER_CALL: Final = 500

log = Logger("forebay.jobs")


async def queued_jobs(redis: Any, queue: str, load: Deserializer) -> list[JobDef]:
    """Return the jobs of a queue that are not finished, by the time from which they may run.

    Args:
        redis: the client.
        queue: key of the pool's queue.
        load: the pool's deserializer.

    Raises:
        DeserializationError: the payload of one cannot be read.
    """
    found = await redis.zrange(queue, 0, -1, withscores=True)
    jobs = []
    for part in _parts(found):
        payloads = await redis.mget([job_key_prefix + name.decode() for name, _score in part])
        for (name, score), payload in zip(part, payloads, strict=True):
            if payload is not None:  # else it ended meanwhile, or expired, or is a cell of a run
                job = deserialize_job(payload, deserializer=load)
                job.score, job.job_id = int(score), name.decode()
                jobs.append(job)
    return jobs


async def all_job_results(redis: Any, queue: str, load: Deserializer) -> list[JobResult]:
    """Return the results that jobs of a queue left, by the time at which they were enqueued.

    Args:
        redis: the client.
        queue: key of the pool's queue.
        load: the pool's deserializer.
    """
    keys = {key async for key in redis.scan_iter(match=f"{result_key_prefix}*", count=1000)}
    results, unreadable = [], 0
    for part in _parts(list(keys)):
        for key, value in zip(part, await redis.mget(part), strict=True):
            if value is None:
                continue  # it expired meanwhile
            try:
                result = deserialize_result(value, deserializer=load)
            except DeserializationError:
                unreadable += 1  # of a pool with another serializer, or of arq itself
                continue
            if result.queue_name == queue:
                result.job_id = key[len(result_key_prefix) :].decode()
                results.append(result)
    if unreadable:
        log.warning("results_not_readable", count=unreadable, queue=queue)
    return sorted(results, key=attrgetter("enqueue_time"))


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), KEYS_PER_CALL):
        yield items[start : start + KEYS_PER_CALL]
