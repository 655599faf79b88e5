"""The ``validator`` generator: checks a column, and may have its value made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forebay.contracts.scheduling import SchedulingMetadata
from forebay.contracts.workflow_local_columns import ValidatorColumn
from forebay.workers.generators.base import GenerationContext, RecordGenerator, RecordRejected
from forebay.workers.generators.templates import RowTemplate


class ValidatorGenerator(RecordGenerator):
    """Evaluates the expression of a validator."""

    def __init__(self, column: ValidatorColumn) -> None:
        self.column = column
        self._template = RowTemplate("expression", column.templates["expression"])

    async def generate(
        self,
        inputs: Mapping[str, Any],
        context: GenerationContext,  # noqa: ARG002 - a validator asks no model
    ) -> Mapping[str, Any]:
        """Return whether the record is good.

        Raises:
            RecordRejected: it is not, and the validator drops such records; or the expression does
                not fit this record.
        """
        is_good = await self.accepts(inputs)
        if not is_good and self.column.on_invalid != "mark":
            raise RecordRejected(f"invalid: {self.column.checks} is refused by {self.column.name}")
        return {self.column.name: is_good}

    async def accepts(self, inputs: Mapping[str, Any]) -> bool:
        """Return whether the expression holds."""
        return await self._template.render(inputs) == "true"


class ValidatedGenerator(RecordGenerator):
    """Makes a column again while its validators refuse it; each call is admitted by itself.

    Args:
        maker: makes the column.
        validators: that ask for another try.
    """

    def __init__(self, maker: RecordGenerator, validators: Sequence[ValidatorGenerator]) -> None:
        self._maker = maker
        self._validators = validators
        self._tries = max(validator.column.tries for validator in validators)

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Return the scheduling metadata of the checked column."""
        return self._maker.get_scheduling_metadata()

    async def generate(
        self, inputs: Mapping[str, Any], context: GenerationContext
    ) -> Mapping[str, Any]:
        """Return the first values that each validator accepts.

        Raises:
            RecordRejected: no try gave them, or the maker refuses the record.
        """
        for tried in range(1, self._tries + 1):
            values = await self._maker.generate(inputs, context)
            refusing = [
                validator.column
                for validator in self._validators
                if not await validator.accepts({**inputs, **values})
            ]
            if not any(tried < column.tries for column in refusing):
                break
        if refusing:
            first = refusing[0]
            raise RecordRejected(
                f"invalid: {first.checks} is refused by {first.name}, {tried} tries"
            )
        return values
