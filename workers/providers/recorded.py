"""Recorded answers of providers, one JSON object a line, and how each is classified.

A line that a user sends us becomes a test. It holds a host, a status, headers and a body; no
request, no key. `stripped` says what is left out of one that was taken as it came.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.outcomes import RequestReleaseOutcome
from forebay.workers.providers.answer_bodies import AnswerReader
from forebay.workers.providers.classification import DefaultClassifier
from forebay.workers.providers.faults import NO_FAULT
from forebay.workers.providers.headers import error_code_of, kept_headers, with_stated_wait
from forebay.workers.providers.registry import GENERIC, profile_of_host

_FIRST_ERROR_STATUS: Final = 400
_KEPT: Final = ("content-type", "x-amzn-errortype")


class RecordedAnswer(BaseModel):
    """One recorded answer, a line of the file.

    Attributes:
        host: that answered, with its port where the URL names one.
        status: HTTP status.
        headers: those that say something of limits, errors or the body's type; names in any case.
        body: the JSON document, a text, or a list of the texts that a stream came in.
        at: Unix time of the answer in seconds, for instants in it.
        expect: what a test wants of the outcome; free to leave out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(min_length=1)
    status: int = Field(ge=100, le=599)
    headers: Mapping[str, str] = Field(default_factory=dict)
    body: Any = None
    at: float = 0.0
    expect: Mapping[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The classification of a recorded answer.

    Attributes:
        outcome: as it is released.
        profile: the name of the provider's profile, "" where the host is not known.
    """

    outcome: RequestReleaseOutcome
    profile: str


def recorded_answers(text: str) -> Iterator[RecordedAnswer]:
    """Yield the answers of a file; empty lines are passed over.

    Raises:
        ConfigurationError: a line is no such object; the message names it.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield RecordedAnswer.model_validate_json(line)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, fault["loc"])) or "the line"
            raise ConfigurationError(
                f"line {number} of the recorded answers: {place}: {fault['msg']}; expected one JSON"
                " object with host, status, headers and body."
            ) from None


def replayed(answer: RecordedAnswer) -> Replayed:
    """Read a recorded answer as a transport reads one that comes over the wire."""
    profile = profile_of_host(answer.host) or GENERIC
    is_refusal = answer.status >= _FIRST_ERROR_STATUS
    headers = {name.lower(): value for name, value in answer.headers.items()}
    kind = headers.get("content-type", "")
    reader = AnswerReader(kind, "", profile, is_refusal=is_refusal, clock=lambda: answer.at)
    for part in _parts(answer.body):
        reader.feed(part)
    fault = reader.fault
    code = error_code_of(answer.status, headers, fault, profile)
    if is_refusal or fault != NO_FAULT:
        headers = dict(with_stated_wait(headers, fault, profile, answer.at))
    classify = DefaultClassifier().classify_response
    outcome = classify(answer.status, headers, code, now=answer.at)
    if reader.usage is not None:
        outcome = replace(outcome, usage=reader.usage)
    return Replayed(outcome=outcome, profile=profile.name)


def stripped(answer: RecordedAnswer) -> RecordedAnswer:
    """Return an answer without the headers that may name an account or hold a secret."""
    kept = kept_headers(answer.headers)
    kept |= {name.lower(): value for name, value in answer.headers.items() if name.lower() in _KEPT}
    for name in ("request-id", "x-request-id"):
        kept.pop(name, None)
    return answer.model_copy(update={"headers": kept})


def _parts(body: Any) -> Iterator[bytes]:
    if isinstance(body, list) and all(isinstance(part, str) for part in body):
        yield from (part.encode() for part in body)
    elif isinstance(body, str):
        yield body.encode()
    elif body is not None:
        yield json.dumps(body).encode()
