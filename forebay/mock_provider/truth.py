"""The hidden truth of the mock provider: its capacity, and the changes over time.

A client never reads these numbers; it has to find them out from the answers it gets, as with a
real provider. The bench scenario "shared capacity" (design 08) compares it with who knows them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_serializer,
    model_validator,
)

from forebay.contracts.errors import ConfigurationError

NONE_WORD = "none"
"""Word by which a TOML file, which has no null, removes a limit: ``concurrency = "none"``."""

_DAY_SECONDS = 86_400.0

DialectName = Literal[
    "openai",
    "azure",
    "bedrock",
    "vertex",
    "gemini",
    "mistral",
    "cohere",
    "groq",
    "together",
    "openrouter",
    "deepseek",
    "vllm",
    "tgi",
    "ollama",
]


def _word_to_none(value: Any) -> Any:
    return None if value == NONE_WORD else value


_NoneWord = BeforeValidator(_word_to_none)
_Limit = Annotated[Annotated[int, Field(ge=1)] | None, _NoneWord]
_Seconds = Annotated[float, Field(ge=0, le=_DAY_SECONDS, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class TruthStep(BaseModel):
    """One planned change: from ``at_seconds`` on, the named fields have new values.

    In a file it is one flat table: ``{at_seconds = 30, concurrency = 8, error_rate = 0.1}``.

    Attributes:
        at_seconds: seconds since the first model request, so that a client which starts late
            still meets the whole schedule.
        changes: field names of :class:`ProviderTruth` with their new values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_seconds: _Seconds
    changes: Mapping[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _gather_changes(cls, value: Any) -> Any:
        """Fold the flat table of a file into ``changes``."""
        if not isinstance(value, Mapping) or set(value) == {"at_seconds", "changes"}:
            return value
        if "at_seconds" not in value:
            msg = "a step needs at_seconds, the seconds since the first request"
            raise ValueError(msg)
        changes = {name: changed for name, changed in value.items() if name != "at_seconds"}
        if not changes:
            msg = "a step names at least one field that changes beside at_seconds"
            raise ValueError(msg)
        return {"at_seconds": value["at_seconds"], "changes": changes}

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"at_seconds": self.at_seconds, **self.changes}


class ProviderTruth(BaseModel):
    """Capacity and behaviour of the mock provider. None means no such limit.

    Attributes:
        concurrency: requests in service at once; the next one is refused. 0 refuses everything,
            as a provider that is down for everybody.
        requests_per_minute: a token bucket of that size, refilled evenly over a minute.
        tokens_per_minute: the same for prompt and completion tokens together.
        latency_median_seconds: median time until an answer, or the first chunk of a stream, comes.
        latency_sigma: sigma of the lognormal latency; 0 gives every request the median.
        latency_floor_seconds: no request is served faster than this.
        error_rate: share of admitted requests that end with status 500, after their latency.
        invalid_json_rate: share of structured answers whose JSON is broken; which ones depends
            on the messages alone, so asking the same again gives the same broken answer.
        retry_after_seconds: what a refusal for concurrency asks to wait; None sends no such
            header. A refusal by a budget always names the time until the budget has room.
        refusal_rate: share of requests that are refused whatever the limits say; 1 is an outage.
        refusal_status: the status of such a refusal: 429, 503 or 529.
        stream_overload_rate: share of streamed answers that end with an overload, told within the
            stream as the dialect does.
        stream_chunk_count: pieces of content in a streamed answer.
        stream_chunk_delay_seconds: time between two pieces.
        embedding_dimensions: length of a vector when the request does not ask for one.
        dialect: the provider whose refusals the OpenAI-compatible paths send.
        schedule: planned changes, in order of time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: Annotated[Annotated[int, Field(ge=0)] | None, _NoneWord] = None
    requests_per_minute: _Limit = None
    tokens_per_minute: _Limit = None
    latency_median_seconds: _Seconds = 0.0
    latency_sigma: Annotated[float, Field(ge=0, le=4)] = 0.0
    latency_floor_seconds: _Seconds = 0.0
    error_rate: _Share = 0.0
    invalid_json_rate: _Share = 0.0
    retry_after_seconds: Annotated[_Seconds | None, _NoneWord] = 1.0
    refusal_rate: _Share = 0.0
    refusal_status: Literal[429, 503, 529] = 429
    stream_overload_rate: _Share = 0.0
    stream_chunk_count: Annotated[int, Field(ge=1, le=10_000)] = 8
    stream_chunk_delay_seconds: _Seconds = 0.0
    embedding_dimensions: Annotated[int, Field(ge=1, le=4096)] = 256
    dialect: DialectName = "openai"
    schedule: tuple[TruthStep, ...] = ()

    @model_validator(mode="after")
    def _schedule_can_happen(self) -> Self:
        """Try each step now: a wrong one must not surface in the middle of a run."""
        moment: ProviderTruth = self
        for number, step in enumerate(self.schedule, start=1):
            if number > 1 and step.at_seconds < self.schedule[number - 2].at_seconds:
                msg = f"schedule step {number}: at_seconds must not be before the step above it"
                raise ValueError(msg)
            try:
                moment = moment.merged(step.changes)
            except ConfigurationError as exc:
                msg = f"schedule step {number}: {exc}"
                raise ValueError(msg) from exc
        return self

    def merged(self, changes: Mapping[str, Any]) -> ProviderTruth:
        """Return this truth with some fields changed and without its schedule.

        Args:
            changes: field names and new values; ``schedule`` is not among them.

        Raises:
            ConfigurationError: an unknown field or a value outside its range.
        """
        if "schedule" in changes:
            msg = "schedule cannot be changed while it runs; give it at the start"
            raise ConfigurationError(msg)
        return parse_truth({**dict(self), "schedule": (), **changes})


def parse_truth(fields: Mapping[str, Any], *, origin: str = "") -> ProviderTruth:
    """Validate the fields of a hidden truth.

    Args:
        fields: names and values as in :class:`ProviderTruth`.
        origin: what the message begins with, such as a file's path.

    Raises:
        ConfigurationError: one sentence with each wrong field and what was expected of it.
    """
    try:
        return ProviderTruth.model_validate(fields)
    except ValidationError as exc:
        prefix = f"{origin}: " if origin else ""
        raise ConfigurationError(prefix + explain_validation(exc)) from exc


def read_truth_file(path: Path) -> dict[str, Any]:
    """Read the fields of a hidden truth from a TOML file, without validating their values.

    Raises:
        ConfigurationError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"{path}: {exc.strerror or exc}; give a readable file") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path}: expected TOML: {exc}; correct that place") from exc


def explain_validation(error: ValidationError) -> str:
    """Say in one sentence which fields are wrong, what was expected, and the fields there are."""
    parts: list[str] = []
    unknown = False
    for fault in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in fault["loc"])
        unknown = unknown or fault["type"] == "extra_forbidden"
        text = "unknown field" if fault["type"] == "extra_forbidden" else fault["msg"]
        text = text.removeprefix("Value error, ")
        parts.append(f"{place}: {text}" if place else text)
    sentence = "; ".join(parts)
    if unknown:
        sentence += f"; the fields are {', '.join(ProviderTruth.model_fields)}"
    return sentence
