"""The evaluating process for templates, schemas, answers and files (ADR 0013).

``python -m forebay.workers.evaluation.process`` answers one request after another until its
standard input closes. The kernel ends it where one takes more CPU time than it may, or more memory.
It holds no key, no environment variable of the worker and no connection.

A request is a header (`REQUEST`), then JSON; a reply is a header (`REPLY`), then JSON with one of
``value``, ``refused`` (of the record: reason and detail) or ``failed`` (of the template or schema).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Final

from forebay.workers.evaluation.limits import MEMORY_BYTES

REQUEST: Final = struct.Struct(">Id")
"""Head of a request: length of the JSON in bytes, and CPU time in seconds."""
REPLY: Final = struct.Struct(">I")
OUT_OF_MEMORY: Final = 75
"""Exit code of a process that ran out of memory."""


def main() -> int:
    """Answer requests until standard input closes."""
    with suppress(ValueError, OSError):  # where the system has no such bound
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        length, cpu_seconds = REQUEST.unpack(header)
        # Nobody handles the signal, so the kernel ends the process, whatever it is in.
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            reply = json.dumps(_answer(requests.read(length)), ensure_ascii=False)
            data = reply.encode("utf-8", "surrogatepass")
        except MemoryError:
            return OUT_OF_MEMORY
        signal.setitimer(signal.ITIMER_PROF, 0)
        try:
            replies.write(REPLY.pack(len(data)) + data)
            replies.flush()
        except BrokenPipeError:  # who asked is gone
            os._exit(0)  # not return: Python would flush the pipe once more, and complain
    return 0


def _answer(data: bytes) -> Mapping[str, Any]:
    request = json.loads(data.decode("utf-8", "surrogatepass"))
    try:
        return _EVALUATIONS[request.pop("evaluate")](**request)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - its message may hold a value; only its type is returned
        return {"failed": f"it cannot be evaluated ({type(error).__name__})"}


def _render(source: str, field: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    from forebay.workers.evaluation import templates  # noqa: PLC0415 - imported where it is used

    try:
        return {"value": templates.render(_template(source), field, values)}
    except templates.TemplateFailed as error:
        return {"refused": [str(error), ""]}


@lru_cache(maxsize=32)
def _template(source: str) -> Any:
    from forebay.workers.evaluation import templates  # noqa: PLC0415

    return templates.ParsedTemplate(source).compile()


def _read_answer(schema: str, answer: str) -> Mapping[str, Any]:
    from forebay.workers.evaluation import answers  # noqa: PLC0415

    try:
        return {"value": answers.read_answer(schema, answer)}
    except answers.AnswerRefused as error:
        return {"refused": [error.reason, error.detail]}
    except ValueError as error:
        return {"failed": str(error)}


def _check_schema(schema: str) -> Mapping[str, Any]:
    from forebay.workers.evaluation import answers  # noqa: PLC0415

    try:
        answers.compile_schema(schema)
    except ValueError as error:
        return {"failed": str(error)}
    return {"value": None}


def _read_document(kind: str, text: str) -> Mapping[str, Any]:
    from forebay.workers.evaluation import documents  # noqa: PLC0415

    return {"value": asdict(documents.read_document(kind, text))}


def _lines_of(kind: str, text: str) -> Mapping[str, Any]:
    from forebay.workers.evaluation import document_lines  # noqa: PLC0415

    if kind == "toml":
        return {"value": document_lines.toml_lines(text)}
    from forebay.workers.evaluation import yaml_loader  # noqa: PLC0415 - an extra

    return {"value": document_lines.yaml_lines(yaml_loader.compose_yaml(text))}


_EVALUATIONS: Final[Mapping[str, Callable[..., Mapping[str, Any]]]] = {
    "template": _render,
    "answer": _read_answer,
    "schema": _check_schema,
    "document": _read_document,
    "lines": _lines_of,
}

if __name__ == "__main__":
    sys.exit(main())
