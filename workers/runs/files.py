"""The files of a run: finished row groups, the output, and the dropped records.

Rules: design 05, *Row groups*.
"""

from __future__ import annotations

import contextlib
import glob
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from forebay.contracts.errors import ConfigurationError, RunNotWritten
from forebay.contracts.outcomes import TaskFailure
from forebay.coordinator.runs.records import WrittenRecord
from forebay.workers.runs.output_problems import file_problem, folder_problem, name_problem
from forebay.workers.runs.tables import count_rows, is_table, table_problem, write_table

_PARTIAL: Final = ".partial"
_PARTS: Final = ".parts"
_SERVER: Final = ".server"
_ASSEMBLED: Final = "assembled"
"""A file among the parts, from when the output has their records on."""


class RunFiles:
    """The files of a run: parts beside its output until the run has ended.

    Args:
        output: absolute path of the final file.
        run_id: names the folder of the parts.

    Attributes:
        output: the final file: Parquet where its name ends so, else JSON Lines.
        dropped: JSON Lines of dropped records, there only if there are any.
        parts: folder of finished row groups, there until the run has ended.
        server: folder of a server that is the run's own, there until the run has ended.
    """

    def __init__(self, output: Path, run_id: str) -> None:
        self.output = output
        self.dropped = output.with_name(f"{output.stem}.dropped.jsonl")
        self.parts = output.with_name(f"{output.name}.{run_id}{_PARTS}")
        self.server = output.with_name(f"{output.name}.{run_id}{_SERVER}")
        self._run_id = run_id

    def problem(self, others: Sequence[tuple[Path, str]]) -> str | None:
        """Return the reason why the run's files cannot be written, None if they can.

        Nothing is written, so what only writing shows, such as a full disk, is found by `begin`.

        Args:
            others: files that must not be overwritten, each with what it is ("the seed file").

        Raises:
            OSError: a path cannot be reached.
        """
        written = {
            self.output: "",
            _partial_of(self.output): ", where the run collects its records first,",
            self.dropped: ", where dropped records go,",
            _partial_of(self.dropped): ", where dropped records are collected first,",
        }
        for path in (
            *written,
            self.parts,
            self.server,
            self._beside(self.dropped),
        ):  # first: nothing can be asked of too long a name
            if problem := name_problem(path.name):
                return problem
        for path, purpose in written.items():
            if problem := file_problem(path, purpose, others):
                return problem
        problem = table_problem() if is_table(self.output) else None
        return problem or folder_problem(self.output.parent)

    def begin(self) -> None:
        """Make the folder of the parts.

        Raises:
            ConfigurationError: it cannot be made; nothing was submitted yet.
        """
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the output folder {self.parts.parent} cannot be written ({error.strerror});"
                " expected a folder of your own; change output.path of the workflow."
            ) from error

    def discard_if_empty(self) -> None:
        """Remove the folder of the parts if nothing was written."""
        with contextlib.suppress(OSError):
            self.parts.rmdir()

    def write_row_group(self, row_group: int, records: Sequence[WrittenRecord]) -> None:
        """Write a row group whole or not at all, so that a driver's death leaves no half of one.

        Raises:
            RunNotWritten: it cannot be written.
        """
        kept = [record.values for record in records if record.dropped is None]
        dropped = [_dropped_line(record) for record in records if record.dropped is not None]
        with self._naming_the_file():
            self.parts.mkdir(exist_ok=True)  # an empty one may be taken for that of a dead driver
            for name, rows in (("records", kept), ("dropped", dropped)):
                path = self.parts / f"{row_group:08d}.{name}.jsonl"
                partial = path.with_suffix(_PARTIAL)
                partial.write_text("".join(map(_json_line, rows)), encoding="utf-8")
                partial.replace(path)

    def row_groups(self) -> set[int]:
        """Return the row groups that are on disk."""
        return {int(path.name.partition(".")[0]) for path in self._parts_of("dropped")}

    def count(self) -> tuple[int, int]:
        """Return how many records the row groups on disk hold, and how many dropped ones.

        Raises:
            RunNotWritten: they cannot be read.
        """
        with self._naming_the_file():
            kept, dropped = map(_count_lines, map(self._parts_of, ("records", "dropped")))
        return kept, dropped

    def assemble(self, *, overwrites: bool = False) -> tuple[Path, Path]:
        """Write the output from the row groups in order, replacing an earlier run's.

        The parts are left, so that a driver that dies now can do so again; `discard` removes them.

        Args:
            overwrites: whether that may be more records than these; if not, these go beside it.

        Returns:
            Where the records are, and where the dropped ones are if there are any.

        Raises:
            RunNotWritten: a file cannot be written; the parts are left.
        """
        with self._naming_the_file():
            self.parts.parent.mkdir(parents=True, exist_ok=True)
            output, dropped = self.output, self.dropped
            kept = _count_lines(self._parts_of("records"))
            if not overwrites and output.exists() and _holds_more(output, kept):
                output, dropped = self._beside(output), self._beside(dropped)
            _put_together(self._parts_of("records"), output)
            if not _concatenate(self._parts_of("dropped"), dropped):
                dropped.unlink()
            (self.parts / _ASSEMBLED).touch()
        return output, dropped

    def discard(self) -> None:
        """Remove the parts, whose records the output has; last the file that says so."""
        for path in [*self._parts_of("records"), *self._parts_of("dropped")]:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.parts, ignore_errors=True)

    def has_unassembled(self) -> bool:
        """Whether there are row groups whose records the output does not have."""
        return bool(self.row_groups()) and not (self.parts / _ASSEMBLED).exists()

    def reasons(self) -> Counter[str]:
        """Return why records were dropped, each with its column, and how often.

        Raises:
            RunNotWritten: they cannot be read.
        """
        found: Counter[str] = Counter()
        with self._naming_the_file():
            for path in self._parts_of("dropped"):
                for line in path.read_text(encoding="utf-8").splitlines():
                    row = json.loads(line)
                    found[f"{row['column']}: {row['reason']}"] += 1
        return found

    def unfinished(self, workflow: str) -> list[str]:
        """Return ids of other runs of a workflow that have left a folder here: they did not end."""
        start = f"{self.output.name}."
        ids = {
            path.name.removeprefix(start).removesuffix(end)
            for end in (_PARTS, _SERVER)
            for path in self.output.parent.glob(f"{glob.escape(start + workflow)}-*{end}")
        }
        return sorted(ids - {self._run_id})

    def _beside(self, path: Path) -> Path:
        stem = path.name.removesuffix(path.suffix)
        return path.with_name(f"{stem}.{self._run_id}{path.suffix}")

    def _parts_of(self, name: str) -> list[Path]:
        return sorted(self.parts.glob(f"*.{name}.jsonl"))

    @contextlib.contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunNotWritten(
                f"{error.filename2 or error.filename or self.output} cannot be written"
                f" ({error.strerror}), expected room and the right to write there; what is finished"
                f" lies in {self.parts}; make room there, and resume the run."
            ) from error


def _partial_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_PARTIAL}")


def _dropped_line(record: WrittenRecord) -> dict[str, Any]:
    """Return the line of a dropped record; what does not apply is null."""
    dropped = record.dropped
    failure = TaskFailure(reason="") if dropped is None else dropped.failure
    return {
        "record": record.number,
        "key": record.key,
        "column": dropped and dropped.column,
        "model": failure.model or None,
        "status": failure.status or None,
        "tries": dropped and dropped.tries,
        "reason": failure.reason,
    }


def _json_line(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def _count_lines(paths: Iterable[Path]) -> int:
    lines = 0
    for path in paths:
        with path.open("rb") as file:
            lines += sum(1 for _ in file)
    return lines


def _holds_more(output: Path, records: int) -> bool:
    """Whether an earlier output holds more records; a file of another kind is taken for one."""
    if not is_table(output):
        return _count_lines([output]) > records
    found = count_rows(output)
    return found is None or found > records


def _put_together(parts: list[Path], output: Path) -> None:
    """Write the output from the parts, in order and atomically."""
    if not is_table(output):
        _concatenate(parts, output)
        return
    partial = _partial_of(output)
    write_table(parts, partial)
    partial.replace(output)


def _concatenate(parts: list[Path], target: Path) -> bool:
    """Put parts into one file in order, replacing it at once; return whether it holds anything."""
    partial = _partial_of(target)
    with partial.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out)
        holds_any = out.tell() > 0
    partial.replace(target)
    return holds_any
