"""The one exception tree of Forebay.

    ForebayError
    ├── ConfigurationError          a wrong URL, setting, file or name; nothing was started
    │   ├── WorkflowError           a workflow file that cannot run, with its place
    │   ├── JobUnreadable           what is stored of a job is not of its pool; carries its id
    │   ├── AttemptIdUsed           an attempt id that another attempt has, or had
    │   ├── RunRefused              a run that no worker may make: variable, file or host
    │   └── SchedulingMetadataError a generator that declares itself wrongly
    ├── CoordinatorError            the shared state could not be used
    │   ├── CoordinatorUnavailable  Redis did not answer within the deadline
    │   ├── CoordinatorFull         Redis is out of memory; releases still work
    │   ├── ServerTooOld            the server's version is not supported
    │   ├── SchemaMismatch          the shard was written by another, incompatible version
    │   ├── ShardDamaged            a key of the shard has gone or cannot be read; carries it
    │   ├── RunLost                 the server lost a run, or records of it are elsewhere
    │   └── MembershipLost          this member was expired: its leases are gone
    ├── RunStopped                  a run of which too many cells of a column failed
    ├── RunNotWritten               a run whose files cannot be written; it is kept and can go on
    ├── RequestAdmissionError       an acquire that was denied; carries RequestAdmissionDenied
    ├── TaskAdmissionError          a submit that was refused; carries the reason
    ├── WorkerLost                  a task whose process died with it too often; names the members
    └── TaskFailed                  a task ended with an exception; carries type and traceback

Every message names the thing, what was expected, and the remedy. RequestAdmissionError and
TaskAdmissionError are defined beside what they carry: contracts/requests.py, contracts/tasks.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ForebayError(Exception):
    """The root of every error that Forebay raises on purpose."""


class ConfigurationError(ForebayError):
    """A URL, setting, name or file is wrong; nothing was started or changed."""


class WorkflowError(ConfigurationError):
    """A workflow file cannot run; the message names the place and what was expected.

    Args:
        sentences: one for each mistake, in the order of the file; the message has one a line.

    Attributes:
        sentences: one for each mistake, in the order of the file.
    """

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class JobUnreadable(ConfigurationError):  # noqa: N818 - an outcome of a job, as TaskFailed
    """A job's stored payload is not in the form that its pool writes; nothing was executed.

    Attributes:
        job_id: the job.
    """

    def __init__(self, job_id: str, message: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class AttemptIdUsed(ConfigurationError):  # noqa: N818 - a state of the id
    """An acquire named an attempt id that another attempt uses or used; each needs its own.

    Attributes:
        attempt_id: the id.
    """

    def __init__(self, attempt_id: str, message: str) -> None:
        super().__init__(message)
        self.attempt_id = attempt_id


class RunRefused(ConfigurationError):  # noqa: N818 - an answer of the workers
    """Every live worker refused the run, as their allowlists lack something that it uses.

    The message names the variable, file or host, the worker and the option that would allow it.
    """


class SchedulingMetadataError(ConfigurationError):
    """A generator declared a kind, identity or weight that cannot be scheduled.

    Attributes:
        code: a stable snake_case name of the fault.
        fallback: metadata to go on with, or None when nothing may be scheduled.
        diagnostics: JSON-compatible details.
    """

    def __init__(
        self,
        code: str,
        message: str,
        fallback: Any = None,
        diagnostics: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.fallback = fallback
        self.diagnostics = diagnostics or {}


class CoordinatorError(ForebayError):
    """The shared state could not be used."""


class CoordinatorUnavailable(CoordinatorError):  # noqa: N818 - normative name of design 06
    """Redis did not answer within the call's deadline."""


class CoordinatorFull(CoordinatorError):  # noqa: N818 - normative name of design 06
    """Redis is out of memory and refuses new leases and tasks; releases still work."""


class ServerTooOld(CoordinatorError):  # noqa: N818
    """The server is older than Redis 7.0 or Valkey 8."""


class SchemaMismatch(CoordinatorError):  # noqa: N818
    """The shard was written by a version that this member cannot speak with."""


class ShardDamaged(CoordinatorError):  # noqa: N818 - a state of the shard
    """A key of a shard has gone or cannot be read, as after an eviction or a stray command.

    The next call of a member begins a rebuild of the shard; where no member runs,
    `forebay reset --rebuild` does, of a pool with `--pool`.

    Attributes:
        key: the key on the server.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class RunLost(CoordinatorError):  # noqa: N818
    """Records of a run are missing: the server lost its state, or another driver wrote them.

    Nothing was deleted: row groups that were written and an earlier output stay as they are.
    """


class RunStopped(ForebayError):  # noqa: N818 - an outcome of a run
    """A run stopped itself, as too many cells of a column failed (``max_error_rate``).

    Finished records and the run itself stay: `forebay resume` goes on with the run.
    """


class RunNotWritten(ForebayError):  # noqa: N818 - a state of the disk
    """A run's files cannot be written, as on a full disk; what is finished and the run are kept."""


class MembershipLost(CoordinatorError):  # noqa: N818
    """This member's heartbeat was overdue: its leases ended as ``member_lost``."""


class WorkerLost(ForebayError):  # noqa: N818
    """A task was lost in each of several members: while it ran their processes died.

    Or its task was cancelled by code of the process that is not the worker's.

    Attributes:
        members: the members, in order.
    """

    def __init__(self, members: Sequence[str]) -> None:
        super().__init__(
            f"worker_lost: it was lost {len(members)} times, the last time with nothing beside it,"
            f" in {', '.join(members)}: the process died, or its task was cancelled; expected a job"
            " that leaves its process alive; look for an exit, a crash of native code, or memory"
            " that the system refuses."
        )
        self.members = tuple(members)


class JobLost(ForebayError):  # noqa: N818
    """A job waited on a server that lost its payload, or all its state, so it can never run.

    Attributes:
        job_id: the job's id.
        function: its function's name; "" where that is unknown.
    """

    def __init__(self, job_id: str, function: str, *, is_result_lost: bool = False) -> None:
        named = f"job {job_id!r}{f' of function {function!r}' if function else ''}"
        lost = (
            f"{named} or its result was lost: the server has lost its state since the job was"
            " enqueued (a restart, a flush, a failover), and has nothing of the job"
            if is_result_lost
            else f"{named} was lost while it waited: the server lost its payload (an eviction, a"
            " deleted key, an older file)"
        )
        super().__init__(
            f"{lost}, expected it to be there until the job ended; enqueue the job again, and see"
            " docs/reliability.md for servers that keep their state."
        )
        self.job_id = job_id
        self.function = function


class TaskFailed(ForebayError):  # noqa: N818 - normative name of design 04
    """A task ended with an exception in its worker.

    Attributes:
        error_type: the qualified name of the exception's class.
        error_message: its message.
        traceback_text: its formatted traceback, with what caused it, or "".
    """

    def __init__(self, error_type: str, error_message: str, traceback_text: str = "") -> None:
        super().__init__(f"{error_type}: {error_message}")
        self.error_type = error_type
        self.error_message = error_message
        self.traceback_text = traceback_text
