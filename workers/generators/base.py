"""The interface of generators: inputs, context, and refusals (design 05, *Generators*)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from forebay.contracts.errors import ForebayError
from forebay.contracts.scheduling import SchedulingMetadata
from forebay.contracts.workflow import RecordRange

MAX_REASON_CHARACTERS: Final = 200


class RecordRejected(ForebayError):  # noqa: N818 - an outcome of a record, not a fault of the run
    """A record cannot be made, and trying again would not help: it is dropped with the reason.

    Attributes:
        reason: a snake_case code and a short text, at most ``MAX_REASON_CHARACTERS``; never a
            prompt, an answer or a row value, for it is logged and written to ``dropped.jsonl``.
    """

    def __init__(self, reason: str) -> None:
        # Whatever it names can be stored: a lone surrogate of a key, say, stands escaped.
        self.reason = reason.encode(errors="backslashreplace").decode()[:MAX_REASON_CHARACTERS]
        super().__init__(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """A model's answer, and its tokens as the provider counted them.

    Attributes:
        text: the answer.
        input_tokens: 0 where the provider did not count them.
        output_tokens: 0 where the provider did not count them.
        is_cut: whether the bound of tokens ended it.
    """

    text: str
    input_tokens: int
    output_tokens: int
    is_cut: bool = False


class ModelCaller(Protocol):
    """The models of a workflow, each call under admission."""

    async def chat(
        self,
        alias: str,
        messages: list[dict[str, str]],
        *,
        response_schema: Mapping[str, Any] | None = None,
    ) -> ChatAnswer:
        """Ask the model ``alias``, with a JSON Schema for its answer where one is given.

        Errors after which another try may help pass through the generators unchanged.
        """
        ...

    async def embed(self, alias: str, texts: Sequence[str]) -> list[list[float]]:
        """Return the vector of each text by the model ``alias``, in order, in one call."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationContext:
    """The context of a task besides its inputs."""

    models: ModelCaller


class Generator:
    """Makes the values of a column. Built once per run in a worker, used by many tasks at once."""

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Return the generator's metadata, equal at each call; by default a local resource."""
        return SchedulingMetadata()


class RecordGenerator(Generator, ABC):
    """Makes the cells of one record."""

    @abstractmethod
    async def generate(
        self, inputs: Mapping[str, Any], context: GenerationContext
    ) -> Mapping[str, Any]:
        """Return the column's outputs by name.

        Args:
            inputs: at least the column's inputs by name; left unchanged.
            context: models to ask.

        Raises:
            RecordRejected: this record cannot be made.
        """


class BatchGenerator(RecordGenerator):
    """Makes the cells of a row group in one task, once all its records have the inputs."""

    @abstractmethod
    async def generate_batch(
        self, rows: Sequence[Mapping[str, Any]], context: GenerationContext
    ) -> Sequence[Mapping[str, Any]]:
        """Return the outputs by name, one mapping for each of ``rows``, in order.

        Args:
            rows: the inputs of each record that was not dropped; left unchanged.
            context: models to ask.

        Raises:
            RecordRejected: none of these records can be made.
        """

    async def generate(
        self, inputs: Mapping[str, Any], context: GenerationContext
    ) -> Mapping[str, Any]:
        """Return the outputs of one record, as a batch of its own."""
        (made,) = await self.generate_batch([inputs], context)
        return made


class RowGroupGenerator(Generator, ABC):
    """A root: makes its columns for all records of a row group out of their places alone."""

    @abstractmethod
    async def generate(
        self, records: RecordRange, context: GenerationContext
    ) -> list[dict[str, Any]]:
        """Return the outputs by name, one dict for each record of the range, in order."""
