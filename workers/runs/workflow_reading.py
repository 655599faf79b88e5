"""From the bytes of a workflow file to a document of plain JSON values."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from forebay.contracts.errors import ConfigurationError, WorkflowError
from forebay.contracts.extras import how_to_install
from forebay.workers.evaluation.evaluator import EvaluationFailed, evaluator
from forebay.workers.evaluation.limits import DOCUMENT_CPU_SECONDS
from forebay.workers.runs.workflow_places import Mistakes, WorkflowFile

MOST_FILE_BYTES: Final = 2**20


def read_document(path: Path) -> WorkflowFile:
    """Read a TOML file, or a YAML file where the suffix is ``.yaml`` or ``.yml``.

    Raises:
        WorkflowError: unreadable, too long, not UTF-8, a syntax error (with line and column), a key
            that stands twice, a value that JSON does not have, or more than can be read within its
            bounds.
        ConfigurationError: YAML, and PyYAML is not installed.
    """
    kind = "yaml" if path.suffix.lower() in {".yaml", ".yml"} else "toml"
    text = _text_of(path)
    if kind == "yaml" and find_spec("yaml") is None:
        raise ConfigurationError(
            f"{path}: YAML needs PyYAML, which is not installed; run {how_to_install('yaml')}, or"
            " write the workflow as TOML."
        )
    try:
        read: dict[str, Any] = evaluator().evaluate_blocking(
            "document", cpu_seconds=DOCUMENT_CPU_SECONDS, kind=kind, text=text
        )
    except EvaluationFailed as error:
        raise WorkflowError(f"{path}: it cannot be read: {error}; make it smaller.") from None
    document, problem = read["value"], read["problem"]
    file = WorkflowFile(
        path=path,
        document=document if isinstance(document, dict) else {},
        kind=kind,
        text=text if problem is None else "",
    )
    mistakes = Mistakes(file)
    if problem is not None:
        mistakes.add(tuple(read["place"]), problem)
    elif not isinstance(document, dict):
        mistakes.add((), "expected keys and values; start with name = ...")
    mistakes.raise_any()
    return file


def _text_of(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a pipe or a device would never end
            raise WorkflowError(f"{path}: not a file; name the workflow's file.")
        with path.open("rb") as stream:
            data = stream.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise WorkflowError(
            f"{path}: cannot be read: {error.strerror}; correct the path or its permissions."
        ) from error
    if len(data) > MOST_FILE_BYTES:
        raise WorkflowError(
            f"{path}: longer than {MOST_FILE_BYTES:,} bytes, which no workflow is; name the"
            " workflow's file, and keep records in a seed file."
        )
    try:
        # With or without the mark that some editors put in front of UTF-8.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkflowError(f"{path}: not UTF-8; save the file as UTF-8.") from error
