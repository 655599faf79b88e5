"""The ``sampler`` generator: values drawn from the places of records alone."""

from __future__ import annotations

import uuid
from datetime import timedelta
from random import Random
from typing import Any, Final

from forebay.contracts.workflow import RecordRange
from forebay.contracts.workflow_local_columns import SamplerColumn
from forebay.workers.generators.base import GenerationContext, RowGroupGenerator

_UUID_BITS: Final = 128


class SamplerGenerator(RowGroupGenerator):
    """Draws a value for each record: the same in each run and for any row groups."""

    def __init__(self, column: SamplerColumn) -> None:
        self._column = column

    async def generate(
        self,
        records: RecordRange,
        context: GenerationContext,  # noqa: ARG002 - a root asks no model
    ) -> list[dict[str, Any]]:
        """Return the values of a row group."""
        name = self._column.name
        return [{name: self.draw(records.start + place)} for place in range(records.count)]

    def draw(self, record: int) -> Any:
        """Return the value of a record, counted from 0."""
        column = self._column
        random = Random(f"{column.seed}:{column.name}:{record}")  # noqa: S311 - no secret
        match column.kind:
            case "category":
                return random.choices(column.values or (), weights=column.weights)[0]
            case "uniform":
                return random.uniform(column.low or 0.0, column.high or 0.0)
            case "integer":
                return random.randint(int(column.low or 0), int(column.high or 0))
            case "normal":
                return random.gauss(column.mean or 0.0, column.stddev or 0.0)
            case "date":
                return self._day(random)
            case "uuid":
                return str(uuid.UUID(int=random.getrandbits(_UUID_BITS), version=4))

    def _day(self, random: Random) -> str:
        start, end = self._column.start, self._column.end
        if start is None or end is None:
            raise ValueError("a date sampler has start and end")
        return (start + timedelta(days=random.randint(0, (end - start).days))).isoformat()
