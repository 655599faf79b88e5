"""Settings: validated where they come in, with safe defaults (design 02, *Config*)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from forebay.contracts.checks import shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestDomain
from forebay.contracts.quotas import MAX_BUDGET, QuotaBudget

LONGEST_SECONDS: Final = 366 * 24 * 3600.0
"""Longest span of a setting: added to a server's clock, it keeps microseconds in a double."""
SHORTEST_SECONDS: Final = 0.001
"""Shortest span of a setting: a shorter one could round to 0 microseconds, which means "off"."""

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A strict number: neither "3" nor True is one."""
Seconds = Annotated[Number, Field(ge=0, le=LONGEST_SECONDS)]
PositiveSeconds = Annotated[Number, Field(ge=SHORTEST_SECONDS, le=LONGEST_SECONDS)]
LARGEST_CAP: Final = 1_000_000_000
Cap = Annotated[int, Field(strict=True, ge=1, le=LARGEST_CAP)]
Budget = Annotated[int, Field(strict=True, ge=1, le=MAX_BUDGET)]


def _fault(settings_name: str, fault: ErrorDetails) -> str:
    """Return one field's fault as part of a sentence: its name, its value, what was expected."""
    place = ".".join(map(str, (settings_name, *fault["loc"])))
    value = "" if fault["type"] == "extra_forbidden" else f" is {shown(fault['input'])}"
    return f"{place}{value}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


class Settings(BaseModel):
    """Base of all settings: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GivenSettings(Settings):
    """Base of settings that a user's code makes by calling them.

    Where they are read instead, from JSON or as part of a file's model, pydantic's own error comes
    through, for its reader to tell the place in that file.

    Raises:
        ConfigurationError: names each refused field, its value and what was expected.
    """

    # The cause of the error shows no values: an unknown field may be a URL with a password.
    model_config = ConfigDict(hide_input_in_errors=True)

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            faults = [_fault(type(self).__name__, fault) for fault in error.errors()]
            raise ConfigurationError(
                f"{'; '.join(faults)}; correct it, or leave it out for its default."
            ) from error

    # As on pydantic's own: models that contain these validate them without calling __init__.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


_OF_STEADY: Final = frozenset({"successes_until_try", "round_successes"})
_OF_AIMD: Final = frozenset(
    {"multiplicative_decrease_factor", "additive_increase_step", "successes_until_increase"}
)
_NUMBERS: Final = {"steady": _OF_STEADY, "aimd": _OF_AIMD}


class RequestAdmissionTuningConfig(GivenSettings):
    """The rule by which a window moves, and the numbers of that rule (design 03, *The window*).

    ``steady`` holds at what is being served and tries one more now and then; ``aimd`` adds a step
    after a streak and multiplies at a refusal. A number of ``aimd`` that is given without a rule
    selects ``aimd``.

    Attributes:
        rule: how windows move.
        successes_until_try: of ``steady``: successes of a full window until it tries one more.
        round_successes: of ``steady``: how many successes confirm a step up, at least a window's
            worth; refusals that are rarer are taken for the provider's noise.
        multiplicative_decrease_factor: of ``aimd``: what a rate limit multiplies the window by.
        additive_increase_step: of ``aimd``: what a full streak of successes adds to it.
        successes_until_increase: of ``aimd``: how many successes make a full streak.
        cooldown_seconds: pause after a rate limit that carried no usable hint; under ``steady``
            only where nothing else was in flight.
        startup_ramp_seconds: a new window climbs from 1 for this long; 0 starts at its target.

    Raises:
        ConfigurationError: a number beyond its bounds, or of one rule with the other.

    Example:
        >>> forebay.RequestAdmissionTuningConfig(successes_until_increase=50).rule
        'aimd'
    """

    rule: Literal["steady", "aimd"] = "steady"
    successes_until_try: Cap = 150
    round_successes: Cap = 24
    multiplicative_decrease_factor: Annotated[Number, Field(gt=0, lt=1)] = 0.75
    additive_increase_step: Cap = 1
    successes_until_increase: Cap = 25
    cooldown_seconds: Seconds = 2.0
    startup_ramp_seconds: Seconds = 0.0

    @model_validator(mode="before")
    @classmethod
    def _numbers_select_their_rule(cls, values: Any) -> Any:
        if isinstance(values, dict) and "rule" not in values and _OF_AIMD & values.keys():
            return {"rule": "aimd", **values}
        return values

    @model_validator(mode="after")
    def _numbers_are_of_the_rule(self) -> Self:
        foreign = sorted(self.model_fields_set & (_OF_AIMD | _OF_STEADY) - _NUMBERS[self.rule])
        if foreign:
            other = "aimd" if self.rule == "steady" else "steady"
            raise ValueError(
                f"{foreign[0]} is a number of rule {other!r} and was given with rule"
                f" {self.rule!r}; give numbers of one rule"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_the_other_rule(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the numbers of the other rule, which could not be read back."""
        foreign = (_OF_AIMD | _OF_STEADY) - _NUMBERS[self.rule]
        return {name: value for name, value in serialize(self).items() if name not in foreign}


class RequestQuotas(GivenSettings):
    """Budgets of requests and tokens that a provider allows an account (design 03).

    Each is a token bucket that starts full and refills evenly; headers of answers may lower it,
    never raise it above what stands here. None is no bound, until headers state one.

    Attributes:
        requests_per_minute: attempts.
        tokens_per_minute: tokens of attempts, by their ``cost`` until their real usage is known.
        requests_per_day: attempts, in 86,400 s.
        tokens_per_day: tokens, in 86,400 s.
        bursts: what may go at once of a budget; default, and at most, the budget itself.

    Raises:
        ConfigurationError: a budget below 1 or above 10^12, or a burst of a budget without limit.

    Example:
        >>> quotas = forebay.RequestQuotas(requests_per_minute=60, tokens_per_minute=90_000)
        >>> quotas.requests_per_day is None
        True
    """

    requests_per_minute: Budget | None = None
    tokens_per_minute: Budget | None = None
    requests_per_day: Budget | None = None
    tokens_per_day: Budget | None = None
    bursts: dict[QuotaBudget, Budget] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _bursts_are_of_budgets(self) -> Self:
        for budget in self.bursts:
            if getattr(self, budget) is None:
                raise ValueError(f"bursts names {budget}, which has no limit; give it one")
        return self


class RequestAdmissionConfig(GivenSettings):
    """Settings of a provider/model that a registration carries besides its cap.

    Attributes:
        tuning: how its windows move.
        initial_limits: where a domain's window is born; default, of rule ``steady``, 4, of
            ``aimd`` its effective max, and never above that.
        max_limit_clamps: a domain's own upper bound below the static cap.
        default_queue_wait_timeout_seconds: wait of items that name none; None waits for ever.
        max_cooldown_seconds: a provider's longest hint that is believed.
        max_hold_seconds: a lease kept longer ends as if its member were lost; None is off.
        quotas: what the provider allows over time, all budgets as a whole; None leaves what the
            fleet has registered, ``RequestQuotas()`` ends it.
        fair_by: what a turn in the fair queue costs its group: ``requests``, 1 each, or
            ``tokens``, the attempt's cost, settled by its real usage.

    Raises:
        ConfigurationError: a field that there is not, or a value beyond its bounds.

    Example:
        >>> config = forebay.RequestAdmissionConfig(initial_limits={"chat": 16}, fair_by="tokens")
        >>> config.initial_limits
        {<RequestDomain.CHAT: 'chat'>: 16}
    """

    tuning: RequestAdmissionTuningConfig = RequestAdmissionTuningConfig()
    initial_limits: dict[RequestDomain, Cap] = Field(default_factory=dict)
    max_limit_clamps: dict[RequestDomain, Cap] = Field(default_factory=dict)
    default_queue_wait_timeout_seconds: Seconds | None = None
    max_cooldown_seconds: PositiveSeconds = 300.0
    max_hold_seconds: PositiveSeconds | None = None
    quotas: RequestQuotas | None = None
    fair_by: Literal["requests", "tokens"] = "requests"


class MemberSettings(GivenSettings):
    """Settings of a process as a member of the fleet (design 06).

    Attributes:
        ttl_seconds: a member whose heartbeat is older than this is expired; it beats every
            third of it.
        call_timeout_seconds: longest wait for an acknowledgement before the typed error.
        recheck_seconds: how often waiters ask for the truth, should a wake-up be lost.
        loop_stall_seconds: heartbeats stop when the event loop has not turned for this long.
        on_unavailable: what a call gets when the server does not answer within the deadline
            (docs/reliability.md, *When the server is away*). ``fail``: `CoordinatorUnavailable`;
            ``wait``: a longer wait, up to the call's own timeout; ``local_share``: an acquire gets
            a lease of this member's share of the last known window, in a slot of a call that ended
            until every lease that the server granted has ended; other calls fail.

    Raises:
        ConfigurationError: a field that there is not, or a value beyond its bounds.

    Example:
        >>> forebay.MemberSettings(ttl_seconds=6.0).call_timeout_seconds
        5.0
    """

    ttl_seconds: Annotated[Number, Field(ge=0.1, le=3600)] = 15.0
    call_timeout_seconds: Annotated[Number, Field(ge=SHORTEST_SECONDS, le=600)] = 5.0
    recheck_seconds: Annotated[Number, Field(ge=SHORTEST_SECONDS, le=60)] = 1.0
    loop_stall_seconds: PositiveSeconds = 300.0
    on_unavailable: Literal["fail", "wait", "local_share"] = "fail"
