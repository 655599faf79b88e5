"""The ``seed`` generator: reads columns from a seed file."""

from __future__ import annotations

import asyncio
from typing import Any

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.workflow import RecordRange, Workflow
from forebay.contracts.workflow_columns import SeedColumn
from forebay.workers.generators.base import GenerationContext, RowGroupGenerator
from forebay.workers.generators.seed_file import SeedReader


class SeedGenerator(RowGroupGenerator):
    """Reads the records of a row group.

    Args:
        column: which columns of the file.
        workflow: with its seed.

    Raises:
        ConfigurationError: the workflow has no seed.
    """

    def __init__(self, column: SeedColumn, workflow: Workflow) -> None:
        if workflow.seed is None:
            raise ConfigurationError(
                f"workflow {workflow.name!r} has a seed column and no seed file, expected both;"
                " load it from its file."
            )
        self._reader = SeedReader(workflow.seed, column.names, column.delimiter)

    async def generate(
        self,
        records: RecordRange,
        context: GenerationContext,  # noqa: ARG002 - a root asks no model
    ) -> list[dict[str, Any]]:
        """Return the records of the range.

        Raises:
            WorkflowError: the file is not on this machine, or is not the one of the run.
        """
        # In a thread: the first read goes through the whole file, and disks can be slow.
        return await asyncio.to_thread(self._reader.read_records, records)
