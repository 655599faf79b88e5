"""The shape of a provider's profile: a table of facts, each with the page that it was read from.

A profile does not say how it is read: `forebay.workers.providers.registry` and the modules that
read answers do that in one way for all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from forebay.contracts.identity import RequestDomain


@dataclass(frozen=True, slots=True)
class Source:
    """The page from which a fact was read.

    Attributes:
        page: a page's address, or a repository or package and the file in it.
        read_on: the day on which it was read, ISO 8601; "" for `UNVERIFIED`.
    """

    page: str
    read_on: str = "2026-11-30"


UNVERIFIED: Final = Source("unverified", "")
"""Source of an unverified fact: shown as such, never relied on alone."""


class Unit(StrEnum):
    """The unit of a budget: requests or tokens of a kind."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


class Period(StrEnum):
    """The time after which a budget is whole again; `AT_ONCE` bounds what is in flight."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    AT_ONCE = "at_once"


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of a refusal; a part is None where the refusal does not state it.

    Attributes:
        unit: what it counts.
        period: over which time.
    """

    unit: Unit | None = None
    period: Period | None = None

    def __str__(self) -> str:
        unit, period = self.unit or "calls", self.period
        if period is Period.AT_ONCE:
            return f"{unit}_at_once"
        return f"{unit}_per_{period or 'time'}"


class Form(StrEnum):
    """The form in which a provider writes a wait.

    Attributes:
        SECONDS: a number of seconds, or an HTTP date.
        MILLISECONDS: a number of milliseconds.
        DURATION: ``6m0s``, ``20ms``, ``1.2s``.
        RFC3339: an instant.
        EPOCH: an instant as Unix time, in seconds or milliseconds.
    """

    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"
    DURATION = "duration"
    RFC3339 = "rfc3339"
    EPOCH = "epoch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint: the calls of one kind.

    Attributes:
        path: a regular expression for the end of the path, from a ``/`` or ``:`` on; its group
            ``model`` is the model's id, where the path names that.
        domain: the window that these calls belong to; None for calls that cost no model's capacity
            and need no lease.
        method: the HTTP method; "" is any.
        source: where this was read.
    """

    path: str
    domain: RequestDomain | None
    source: Source
    method: str = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a prompt that is no text: an image, a sound, a file.

    Attributes:
        named: its ``type``, or the field that holds it.
        tokens: tokens of one.
        per_kilobyte: tokens for each 1,000 characters of its data in base64.
        source: where this was read.
    """

    named: str
    source: Source
    tokens: int = 0
    per_kilobyte: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The fields of a request's JSON body that determine its cost.

    Attributes:
        models: fields that name the model.
        prompts: fields that the model reads, so that cost tokens.
        bounds: fields that bound the output's tokens, the first one given counts.
        answers: fields that ask for several answers.
        parts: what costs tokens without being text.
        source: where this was read.
    """

    source: Source
    models: tuple[str, ...] = ("model",)
    prompts: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The fields of an answer, or of a stream's event, that hold its usage.

    All names are paths with dots. ``places`` are within the document, the others within a place.

    Attributes:
        places: where the counts are; "" is the document itself.
        inputs: the input's count, the first one that is there.
        more_inputs: counts that are not part of it and are drawn from the same budget.
        free_inputs: counts that are part of it and are drawn from no budget.
        outputs: the output's count, the first one that is there.
        more_outputs: counts that are not part of it, as thoughts may be.
        source: where this was read.
    """

    source: Source
    places: tuple[str, ...] = ("usage",)
    inputs: tuple[str, ...] = ()
    more_inputs: tuple[str, ...] = ()
    free_inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    more_outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """Codes of errors, in a body, an event of a stream or a header; compared without case.

    Attributes:
        places: where in a document an error object is; a list stands for each of its items.
        codes: fields of an error object that hold a code, the most telling first.
        reasons: fields of an error object whose value goes before all codes, if it is one that a
            profile knows.
        headers: headers that hold a code.
        overload: codes that mean overload under any status, 2xx too.
        overload_statuses: statuses that mean overload.
        account: codes of an account that cannot be served: no waiting helps.
        request: codes of one request that cannot be served: no waiting helps, nobody else is
            concerned.
        budgets: codes that name a budget.
        limits: paths in the error's document to the limit that was met; 0 is an account that has
            none of what it asked for.
        source: where this was read.
    """

    source: Source
    places: tuple[str, ...] = ("error",)
    codes: tuple[str, ...] = ("code", "type")
    reasons: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    overload: frozenset[str] = frozenset()
    overload_statuses: frozenset[int] = frozenset()
    account: frozenset[str] = frozenset()
    request: frozenset[str] = frozenset()
    budgets: tuple[tuple[str, Budget], ...] = ()
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """The fields of a refusal that hold its wait and its budget.

    Attributes:
        headers: names and forms, the most exact first.
        fields: paths in the error's document that hold a duration, and their forms.
        texts: regular expressions for the error's message, beside those that `messages` knows; the
            group ``wait`` is a duration or an instant.
        budget_fields: paths in the error's document whose text names the budget.
        budget_texts: regular expressions for the message, and the budget that each names.
        resets: budget headers ``(unit, period, name of the reset's header, its form)``; the period
            is None where only the reset tells it.
        day_ends: time zone in which a budget of a day ends at midnight; "" where nobody says.
        source: where this was read.
    """

    source: Source
    headers: tuple[tuple[str, Form], ...] = (("retry-after", Form.SECONDS),)
    fields: tuple[tuple[str, Form], ...] = ()
    texts: tuple[str, ...] = ()
    budget_fields: tuple[str, ...] = ()
    budget_texts: tuple[tuple[str, Budget], ...] = ()
    resets: tuple[tuple[Unit, Period | None, str, Form], ...] = ()
    day_ends: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """The form of a streamed answer: its events and its last event.

    Attributes:
        kinds: content types of streams.
        last: the ``type`` of the last event.
        failed: the ``type`` of an event that tells an error.
        failed_choice: what ``finish_reason`` of a choice says of an error.
        source: where this was read.
    """

    source: Source
    kinds: tuple[str, ...] = ("text/event-stream",)
    last: tuple[str, ...] = ()
    failed: tuple[str, ...] = ("error",)
    failed_choice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderProfile:
    """One provider's profile.

    Attributes:
        name: the provider's name in keys, in lower case.
        title: what its page calls it.
        hosts: hosts in lower case; ``*`` stands for any part of a name.
        named_by_host: whether each host has limits of its own, so that the host is the provider's
            name in keys: a resource of Azure, a region of Bedrock.
        endpoints: its calls; the first one whose path fits counts.
        body, usage, refusals, waits, streams: see there; None where nothing was read.
    """

    name: str
    title: str
    hosts: tuple[str, ...] = ()
    named_by_host: bool = False
    endpoints: tuple[Endpoint, ...] = ()
    body: Body | None = None
    usage: Usage | None = None
    refusals: Refusals | None = None
    waits: Waits | None = None
    streams: Streams | None = None
    notes: tuple[str, ...] = field(default=())
