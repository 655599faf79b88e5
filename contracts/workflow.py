"""A workflow: its file, and the checked form that a run is submitted with.

Rules: design 05, *Workflow files*.

``WorkflowSpec`` is the file. ``Workflow`` is the same after loading: paths absolute, the seed file
counted and fingerprinted, and each column with its inputs. It crosses to the workers as JSON
(``model_dump_json`` and ``model_validate_json``) and holds names of keys, never keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from forebay.contracts.settings import Cap, RequestAdmissionTuningConfig, RequestQuotas
from forebay.contracts.workflow_column_kinds import ColumnSpec
from forebay.contracts.workflow_columns import (
    ConditionColumn,
    Name,
    PathText,
    WorkflowName,
    WorkflowPart,
)


def _http_address(url: str) -> str:
    """Return an address without its last slash; the message shows none of it: it may hold a key."""
    expected = "expected http(s)://host[:port][/path] without user, password, query or fragment"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(expected) from None
    if not usable or "@" in parts.netloc or "?" in url or "#" in url or re.search(r"\s", url):
        raise ValueError(expected)
    return url.rstrip("/")


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        # The text is not shown: it is likely the key itself.
        raise ValueError(
            "expected the name of an environment variable such as OPENAI_API_KEY, never the key"
        )
    return name


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ProviderSpec(WorkflowPart):
    """A provider of a workflow: the API that serves its models.

    Attributes:
        base_url: an OpenAI-compatible address, without its last slash.
        api_key_env: the name of the environment variable that holds the key; None sends none.
        kind: the wire format.
        json_schema: whether it takes a JSON Schema for answers (``response_format``); where it does
            not, answers are checked, and asked for again, here alone.
    """

    base_url: Annotated[str, AfterValidator(_http_address)]
    api_key_env: Annotated[str, AfterValidator(_variable_name)] | None = None
    kind: Literal["openai"] = "openai"
    json_schema: bool = True


class ModelSpec(WorkflowPart):
    """A model under an alias; aliases of one provider and model share one window and cap.

    Attributes:
        provider: a key of ``providers``.
        model: the provider's own name of the model.
        max_parallel_requests: the most calls that the whole fleet may have under way.
        temperature: sampling temperature; None leaves it to the provider.
        max_tokens: longest answer in tokens; None leaves it to the provider.
        initial_limit: where its windows are born; None leaves that to the window's rule.
        tuning: how the window moves; None takes the defaults.
        quotas: what the account may use over time; None leaves what the fleet has registered.
        input_price: of a million input tokens, in the workflow's ``currency``; None is not known.
        output_price: of a million output tokens.
        timeout_seconds: longest wait for the answer of one attempt.
        max_attempts: attempts of one call, the first included.
        max_answer_bytes: longest answer, as JSON; a longer one drops its record.
    """

    provider: Name
    model: Name
    max_parallel_requests: Cap
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max_tokens: Cap | None = None
    initial_limit: Cap | None = None
    tuning: RequestAdmissionTuningConfig | None = None
    quotas: RequestQuotas | None = None
    input_price: Price | None = None
    output_price: Price | None = None
    timeout_seconds: Positive = 60.0
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 4
    max_answer_bytes: Annotated[int, Field(ge=1_024, le=16 * 2**20)] = 2**20


class OutputSpec(WorkflowPart):
    """The output path of a run: relative to the current directory, absolute once loaded."""

    path: PathText


class WorkflowSettings(WorkflowPart):
    """Fields common to a workflow file and a loaded workflow.

    Attributes:
        name: names the workflow, for people, and its runs; so it can be part of a file name.
        buffer_size: records per row group.
        max_concurrent_row_groups: row groups open at a time, besides those whose open cells
            all wait for a provider's cooldown.
        row_group_admission: ``fixed`` opens so many at once; ``additive`` begins with one and opens
            one more each time a worker with a free slot finds nothing ready.
        max_admitted_rows: most records in row groups that are open or unwritten, the first row
            group excepted; it bounds what a run keeps on the server.
        max_tries: how often a task is tried before its record is dropped.
        max_retries: tries behind the first of all tasks of a run together; None allows as many as
            it has cells, and 100 at least.
        max_error_rate: share of failed cells among the last finished ones of a column above which
            the run stops itself; 1 stops none.
        min_error_window: finished cells of a column that are looked at for that, at least.
        currency: of the models' prices, for people.
        records: how many records to make where no seed file says it; None with a seed.
        output: where the records go.
        providers: by name; empty where no column asks a model.
        models: by alias.
    """

    name: WorkflowName
    buffer_size: Annotated[int, Field(ge=1, le=100_000)] = 100
    max_concurrent_row_groups: Annotated[int, Field(ge=1, le=10_000)] = 4
    row_group_admission: Literal["fixed", "additive"] = "fixed"
    max_admitted_rows: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    max_tries: Annotated[int, Field(ge=1, le=100)] = 3
    max_retries: Annotated[int, Field(ge=0, le=10**9)] | None = None
    max_error_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    min_error_window: Annotated[int, Field(ge=1, le=100_000)] = 20
    currency: Annotated[str, Field(min_length=1, max_length=12)] = "USD"
    records: Annotated[int, Field(ge=1, le=10**9)] | None = None
    output: OutputSpec
    providers: dict[Name, ProviderSpec] = Field(default_factory=dict)
    models: dict[Name, ModelSpec] = Field(default_factory=dict)

    def static_cap(self, alias: str) -> int:
        """Return the smallest cap of all aliases of this alias's provider and model (design 02)."""
        endpoint = (self.models[alias].provider, self.models[alias].model)
        return min(
            model.max_parallel_requests
            for model in self.models.values()
            if (model.provider, model.model) == endpoint
        )

    def prices_of(self, endpoint: str) -> tuple[float, float] | None:
        """Return a model's prices of a million input and output tokens; None if unknown.

        Args:
            endpoint: as ``provider/model``.
        """
        for model in self.models.values():
            is_it = f"{model.provider}/{model.model}".lower() == endpoint.lower()
            if is_it and model.input_price is not None and model.output_price is not None:
                return model.input_price, model.output_price
        return None


class WorkflowSpec(WorkflowSettings):
    """A workflow file, checked in form but not yet in meaning."""

    columns: Annotated[tuple[ColumnSpec, ...], Field(min_length=1)]


class TaskType(StrEnum):
    """The three kinds of task of a run (design 05, *Workflow files*).

    ``FROM_SCRATCH`` is a root, which makes its columns for a row group out of the records' places
    alone; ``CELL`` makes one column of one record; ``BATCH`` makes one column of a row group, once
    all its open records have the inputs.
    """

    FROM_SCRATCH = "from_scratch"
    CELL = "cell"
    BATCH = "batch"


class PlannedColumn(WorkflowPart):
    """A column with what follows from the whole workflow.

    Attributes:
        spec: what the file says of it.
        inputs: columns that must be there before it, in the order of the workflow; empty for a
            root. Where there is a seed, a record exists once that is read, so a column that uses
            nothing waits for the seed's first column.
        depends_on: indices into ``Workflow.columns`` of those that make the inputs, ascending.
        task_type: whether a task makes a row group from scratch, a cell or a batch.
        condition: the column whose value ``true`` skips a cell of this one; None skips none.
    """

    spec: ColumnSpec | ConditionColumn
    inputs: tuple[str, ...]
    depends_on: tuple[int, ...]
    task_type: TaskType
    condition: str | None = None

    @property
    def is_written(self) -> bool:
        """Whether the column is part of the output; the columns of conditions are not."""
        return not isinstance(self.spec, ConditionColumn)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the columns that this column makes; its task group has them as flow identity."""
        return self.spec.outputs


class SeedFile(WorkflowPart):
    """The seed file as it was when the run was submitted, so that a worker notices another one.

    Attributes:
        path: absolute; the same on every machine of the fleet.
        size_bytes: its size.
        sha256: hexadecimal digest of its bytes.
        records: how many records it holds, at least 1.
    """

    path: PathText
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    records: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRange:
    """The records ``start .. start + count`` of a run, the last excluded, counted from 0."""

    start: int
    count: int


class Workflow(WorkflowSettings):
    """A workflow that was checked and can be submitted.

    Attributes:
        file: absolute path of the file it was read from, for messages.
        columns: in the order of the file.
        seed: the file that the records come from; None where ``records`` says how many there are.
    """

    file: str
    columns: tuple[PlannedColumn, ...]
    seed: SeedFile | None

    @property
    def record_count(self) -> int:
        """Number of records that are asked for."""
        return (self.records or 0) if self.seed is None else self.seed.records

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the values of an output record, in the order of the columns."""
        return tuple(
            name for column in self.columns if column.is_written for name in column.outputs
        )

    @property
    def retry_budget(self) -> int:
        """Most retries of the run, over all its tasks."""
        if self.max_retries is not None:
            return self.max_retries
        return max(100, self.record_count * len(self.columns))

    @property
    def row_group_count(self) -> int:
        """Number of row groups; the last may be smaller than ``buffer_size``."""
        return -(-self.record_count // self.buffer_size)

    def row_group(self, index: int) -> RecordRange:
        """Return the records of the row group ``index``, from 0.

        Raises:
            IndexError: there is no such row group.
        """
        if not 0 <= index < self.row_group_count:
            raise IndexError(
                f"row group {index} of {self.name!r} does not exist; it has {self.row_group_count}."
            )
        start = index * self.buffer_size
        return RecordRange(start=start, count=min(self.buffer_size, self.record_count - start))
