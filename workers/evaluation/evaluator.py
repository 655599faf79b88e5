"""Evaluations of foreign templates, answers and files, each within bounds (ADR 0013).

They run in processes of their own, which the kernel ends where one takes too much. So a hostile
value costs its own record, and neither the event loop nor the process that holds the leases.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any, Final

from forebay.contracts.errors import ForebayError
from forebay.workers.evaluation.limits import (
    CPU_SECONDS,
    MEMORY_BYTES,
    MOST_REPLY_BYTES,
    MOST_REQUEST_BYTES,
    WALL_SECONDS,
)
from forebay.workers.evaluation.process import OUT_OF_MEMORY, REPLY, REQUEST

MOST_PROCESSES: Final = 2
"""Evaluating processes of one process of ours; the second is started when the first is busy."""

_CPU_SIGNALS: Final = (-signal.SIGPROF, -signal.SIGXCPU)
_CRASHES: Final = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL)
_MODULE: Final = "forebay.workers.evaluation.process"


class EvaluationRefused(ForebayError):  # noqa: N818 - an outcome of a value, not a fault
    """A value does not fit its template or schema.

    Attributes:
        reason: what was wrong, without any value.
        detail: the same with the value, where there is more to say.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class EvaluationFailed(ForebayError):  # noqa: N818 - as above
    """A template, schema or value cannot be evaluated within its bounds; says which."""


class EvaluatorUnavailable(ForebayError):  # noqa: N818 - no fault of what was evaluated
    """The evaluating process cannot be started, or was ended from outside twice."""


class Evaluator:
    """Sends evaluations to processes that it starts on demand and replaces.

    Any thread may call. Use `evaluator`, which is the one of this process.
    """

    def __init__(self) -> None:
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._threads = ThreadPoolExecutor(MOST_PROCESSES, thread_name_prefix="forebay-evaluator")
        atexit.register(self.close)

    async def evaluate(
        self, what: str, *, cpu_seconds: float = CPU_SECONDS, **arguments: Any
    ) -> Any:
        """Send an evaluation and return its value, without blocking the event loop.

        Args:
            what: ``template``, ``answer``, ``schema``, ``document`` or ``lines``.
            cpu_seconds: how much CPU time it may take.
            arguments: of that evaluation, in `forebay.workers.evaluation.process`.

        Raises:
            EvaluationRefused: a value does not fit.
            EvaluationFailed: it cannot be evaluated, or not within its bounds.
            EvaluatorUnavailable: there is no process to evaluate it.
        """
        request = _encoded(what, arguments)
        reply = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._ask, request, cpu_seconds
        )
        return _value_of(reply)

    def evaluate_blocking(
        self, what: str, *, cpu_seconds: float = CPU_SECONDS, **arguments: Any
    ) -> Any:
        """Do as `evaluate`, where no event loop runs."""
        return _value_of(self._ask(_encoded(what, arguments), cpu_seconds))

    def close(self) -> None:
        """End the idle processes; a later evaluation starts new ones."""
        if os.getpid() != self._process_id:
            return  # a forked child: they are its parent's
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def _ask(self, request: bytes, cpu_seconds: float) -> bytes:
        for _ in range(2):
            process = self._take()
            try:
                return self._answered(process, request, cpu_seconds)
            except _Ended as ended:
                exit_code = ended.exit_code
                if bound := _bound_of(exit_code, cpu_seconds):
                    raise EvaluationFailed(bound) from None
        raise EvaluatorUnavailable(
            f"the process that evaluates templates and answers ended with exit code {exit_code}"
            " before it had answered, twice; expected it to go on; see the standard error of this"
            f" process, and whether `{sys.executable} -m {_MODULE}` starts."
        )

    def _answered(self, process: _Process, request: bytes, cpu_seconds: float) -> bytes:
        try:
            reply = process.ask(request, cpu_seconds)
        except BaseException:
            process.end()
            raise
        with self._lock:
            self._idle.append(process)
        return reply

    def _take(self) -> _Process:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Process()


class _Ended(Exception):  # noqa: N818 - tells of an end, which may be no fault
    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class _Process:
    """One evaluating process; asked by one thread at a time."""

    def __init__(self) -> None:
        # No variable of the worker's: they hold keys. -P: no module of the current directory.
        path = os.pathsep.join(folder for folder in sys.path if folder)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C in a terminal is for the worker to handle
        )

    def ask(self, request: bytes, cpu_seconds: float) -> bytes:
        deadline = time.monotonic() + WALL_SECONDS
        requests, replies = self._pipes()
        try:
            requests.write(REQUEST.pack(len(request), cpu_seconds))
            requests.write(request)
            requests.flush()
        except BrokenPipeError:
            raise _Ended(self._process.wait()) from None
        (length,) = REPLY.unpack(self._read(replies, REPLY.size, deadline))
        if length > MOST_REPLY_BYTES:
            raise EvaluationFailed(f"its result is longer than {MOST_REPLY_BYTES:,} bytes")
        return self._read(replies, length, deadline)

    def end(self) -> None:
        with suppress(OSError):
            self._process.kill()
        for pipe in self._pipes():
            with suppress(OSError):
                pipe.close()
        self._process.wait()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None  # noqa: S101 - for mypy; both are pipes
        assert replies is not None  # noqa: S101
        return requests, replies

    def _read(self, replies: IO[bytes], length: int, deadline: float) -> bytes:
        data = bytearray()
        poll = select.poll()
        poll.register(replies.fileno(), select.POLLIN)
        while len(data) < length:
            left_ms = (deadline - time.monotonic()) * 1000
            if left_ms <= 0 or not poll.poll(left_ms):
                raise EvaluationFailed(f"it did not end within {WALL_SECONDS:g} s")
            part = os.read(replies.fileno(), min(length - len(data), 2**20))
            if not part:
                raise _Ended(self._process.wait())
            data += part
        return bytes(data)


def evaluator() -> Evaluator:
    """Return the evaluator of this process; a forked child gets one of its own."""
    process_id = os.getpid()
    with _LOCK:
        if process_id not in _EVALUATORS:
            _EVALUATORS[process_id] = Evaluator()
        return _EVALUATORS[process_id]


_LOCK = threading.Lock()
# A parent's stays in here in a forked child: its processes are not the child's to wait for.
_EVALUATORS: Final[dict[int, Evaluator]] = {}


def _encoded(what: str, arguments: Mapping[str, Any]) -> bytes:
    text = json.dumps({"evaluate": what, **arguments}, ensure_ascii=False)
    request = text.encode("utf-8", "surrogatepass")
    if len(request) > MOST_REQUEST_BYTES:
        raise EvaluationFailed(f"its values are longer than {MOST_REQUEST_BYTES:,} bytes")
    return request


def _value_of(reply: bytes) -> Any:
    told = json.loads(reply.decode("utf-8", "surrogatepass"))
    if "refused" in told:
        raise EvaluationRefused(*told["refused"])
    if "failed" in told:
        raise EvaluationFailed(told["failed"])
    return told["value"]


def _bound_of(exit_code: int, cpu_seconds: float) -> str | None:
    """Return the name of the bound that ended a process, None for none."""
    if exit_code in _CPU_SIGNALS:
        return f"it takes more than {cpu_seconds:g} s of CPU time"
    if exit_code == OUT_OF_MEMORY:
        return f"it takes more than {MEMORY_BYTES // 2**20} MB of memory"
    if exit_code in _CRASHES:
        return "the process that evaluated it crashed"
    return None
