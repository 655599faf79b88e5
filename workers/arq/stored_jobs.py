"""Jobs and results as they are stored: read by the pool's serializer, checked, never unpickled.

Anybody who can write to the server can write under ``arq:job:`` and ``arq:result:``. So a pool's
client reads and checks what lies there before anybody else does: it answers with `Decoded`, or with
`JobUnreadable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from arq.connections import ArqRedis
from arq.constants import job_key_prefix, result_key_prefix
from arq.jobs import JobDef, JobResult, deserialize_job, deserialize_result
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from forebay.contracts.checks import shown
from forebay.contracts.errors import ConfigurationError, JobUnreadable
from forebay.coordinator.logs import Logger
from forebay.workers.arq.bounds import Bounds
from forebay.workers.arq.serialization import Decoded, JobSerializer

_LATEST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, beyond which Python has no dates."""
_READS: Final = frozenset({"GET", "GETDEL", "GETEX", "MGET"})

log = Logger("forebay.worker")

Fields = Mapping[str, tuple[type, ...] | None]

_JOB: Final[Fields] = {
    "f": (str,),
    "a": (list, tuple),
    "k": (dict,),
    "t": (int, type(None)),
    "et": (int,),
}
"""arq's fields of a job, each with the types that arq can use; None for any."""
_RESULT: Final[Fields] = {**_JOB, "s": (bool,), "r": None, "st": (int,), "ft": (int,)}
_TIMES: Final = ("et", "st", "ft")
_KINDS: Final[Mapping[str, tuple[str, Fields]]] = {
    job_key_prefix: ("payload", _JOB),
    result_key_prefix: ("result", _RESULT),
}
_ABSENT: Final = object()


class StoredJobs:
    """Reads the jobs and results of one pool.

    Args:
        serializer: of the pool's jobs and results.
    """

    def __init__(self, serializer: JobSerializer) -> None:
        self._serializer = serializer

    def payload(self, job_id: str, stored: bytes) -> Decoded:
        """Return a job's payload, read and checked.

        Raises:
            JobUnreadable: it is not what this pool's clients write.
        """
        return self._read(job_key_prefix, job_id, stored)

    def answer(self, args: Sequence[Any], reply: Any) -> Any:
        """Return the reply of a command with each job or result in it read and checked.

        Raises:
            JobUnreadable: one of them is not what this pool writes.
        """
        if len(args) < 2 or _text(args[0]).upper() not in _READS:  # noqa: PLR2004
            return reply
        if isinstance(reply, list):
            keys = [key for arg in args[1:] for key in (arg if isinstance(arg, list) else [arg])]
            return [self._answered(*pair) for pair in zip(keys, reply, strict=True)]
        return self._answered(args[1], reply)

    def refuse(self, args: Sequence[Any], error: ResponseError) -> None:
        """Raise a typed error for a command whose key of a job or result has another type.

        Raises:
            JobUnreadable: it is.
        """
        if len(args) < 2 or not str(error).startswith("WRONGTYPE"):  # noqa: PLR2004
            return
        name = _text(args[1])
        for prefix, (what, _fields) in _KINDS.items():
            if name.startswith(prefix):
                problem = "the key is of another type, as another program made it"
                raise _unreadable(what, prefix, name.removeprefix(prefix), problem) from error

    def _answered(self, key: Any, stored: Any) -> Any:
        if not isinstance(stored, bytes) or not stored:
            return stored
        name = _text(key)
        for prefix in _KINDS:
            if name.startswith(prefix):
                return self._read(prefix, name.removeprefix(prefix), stored)
        return stored

    def _read(self, prefix: str, job_id: str, stored: bytes) -> Decoded:
        what, fields = _KINDS[prefix]
        try:
            value = self._serializer.load(stored)
        except ConfigurationError as error:
            raise _unreadable(what, prefix, job_id, str(error)) from error
        problem = _problem(value, fields)
        if problem is not None:
            raise _unreadable(what, prefix, job_id, problem)
        value["a"] = tuple(value["a"])  # as arq types them; JSON knows lists alone
        return Decoded.of(stored, value)


def _problem(value: Any, fields: Fields) -> str | None:
    """Return the fault of a job or result, None for none; called for every job, so fast."""
    if type(value) is not dict:
        return f"it is of type {type(value).__name__}, expected a table of arq's fields"
    for name, types in fields.items():
        found = value.get(name, _ABSENT)
        if found is _ABSENT:
            return f"its field {name!r} is not there"
        if types is not None and type(found) not in types:
            return f"its field {name!r} is {shown(found)}, which arq cannot use"
        if name in _TIMES and not 0 <= found <= _LATEST_MS:
            return f"its field {name!r} is {shown(found)}, which is no time"
    return None


class JobPipeline(Pipeline):
    """A pipeline of a pool's client, which reads jobs and results as the client does.

    Args:
        jobs: reads them.
        bounds: end each call within its deadline.
        arguments: redis-py's own.
    """

    def __init__(self, jobs: StoredJobs, bounds: Bounds, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._jobs = jobs
        self._bounds = bounds

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command at once."""
        try:
            reply = await self._bounds.run(super().immediate_execute_command(*args, **options))  # type: ignore[no-untyped-call] # redis-py's
        except ResponseError as error:
            self._jobs.refuse(args, error)
            raise
        return self._jobs.answer(args, reply)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run the staged commands and return their replies.

        Raises:
            JobUnreadable: a job or result in them is not what this pool writes.
            PoolUnavailable: the server did not answer within the deadline of a call.
        """
        return await self._bounds.run(self._execute(raise_on_error))

    async def _execute(self, raise_on_error: bool) -> list[Any]:
        staged = list(self.command_stack)
        replies = await super().execute(raise_on_error=False)
        if len(staged) != len(replies):
            return list(replies)
        for (args, _options), reply in zip(staged, replies, strict=True):
            if isinstance(reply, ResponseError):
                self._jobs.refuse(args, reply)
        if raise_on_error:
            self.raise_first_error(staged, replies)
        return [
            self._jobs.answer(args, reply)
            for (args, _options), reply in zip(staged, replies, strict=True)
        ]


async def read_results(client: ArqRedis) -> list[JobResult]:
    """Return the results of all jobs on the server, by when they were enqueued.

    A warning names each that another program wrote.
    """
    found = []
    async for key in client.scan_iter(f"{result_key_prefix}*", count=1000):
        stored = await _read_or_warn(client, key)
        if stored is not None:
            result = deserialize_result(stored, deserializer=client.job_deserializer)
            result.job_id = _text(key).removeprefix(result_key_prefix)
            found.append(result)
    return sorted(found, key=attrgetter("enqueue_time"))


async def read_queued(client: ArqRedis, queue_name: str) -> list[JobDef]:
    """Return the jobs of a queue that are not finished; tasks of runs have no job of their own.

    A warning names each whose payload another program wrote.
    """
    found = []
    for name, score in await client.zrange(queue_name, withscores=True, start=0, end=-1):
        stored = await _read_or_warn(client, job_key_prefix.encode() + name)
        if stored is not None:
            job = deserialize_job(stored, deserializer=client.job_deserializer)
            job.job_id, job.score = _text(name), int(score)
            found.append(job)
    return found


async def _read_or_warn(client: ArqRedis, key: bytes) -> bytes | None:
    try:
        stored: bytes | None = await client.get(key)
    except JobUnreadable as error:
        log.warning("job_unreadable", task_id=error.job_id, error=str(error))
        return None
    return stored


def _text(part: Any) -> str:
    if isinstance(part, str):
        return part
    return bytes(part).decode(errors="backslashreplace") if isinstance(part, _BYTES) else str(part)


_BYTES: Final = (bytes, bytearray, memoryview)


def _unreadable(what: str, prefix: str, job_id: str, problem: str) -> JobUnreadable:
    return JobUnreadable(
        job_id,
        f"the {what} of job {job_id!r}, under {prefix}{job_id}, is not what this pool writes:"
        f" {problem.rstrip('.')}. Enqueue jobs through this pool, and read them by"
        f" pool.job({job_id!r}) of a client with the pool's serializer.",
    )
