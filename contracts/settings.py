"""Settings: validated where they come in, with safe defaults (spec 02, *Requests: Config*)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from contracts.identity import RequestDomain

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Cap = Annotated[int, Field(ge=1, le=1_000_000_000)]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestAdmissionTuningConfig(Settings):
    """How a window moves.

    Attributes:
        multiplicative_decrease_factor: what a rate limit multiplies the window by.
        additive_increase_step: what a full streak of successes adds to it.
        successes_until_increase: how many successes make a full streak.
        cooldown_seconds: pause after a rate limit that carried no usable hint.
        startup_ramp_seconds: a new window climbs from 1 for this long; 0 starts at its target.
    """

    multiplicative_decrease_factor: Annotated[float, Field(gt=0, lt=1)] = 0.75
    additive_increase_step: Annotated[int, Field(ge=1)] = 1
    successes_until_increase: Annotated[int, Field(ge=1)] = 25
    cooldown_seconds: Seconds = 2.0
    startup_ramp_seconds: Seconds = 0.0


class RequestAdmissionConfig(Settings):
    """What a registration may say of a provider/model besides its cap.

    Attributes:
        tuning: how its windows move.
        initial_limits: where a domain's window is born; default its effective max.
        max_limit_clamps: a domain's own upper bound below the static cap.
        default_queue_wait_timeout_seconds: wait of items that name none; None waits for ever.
        max_cooldown_seconds: a provider's longest hint that is believed.
        max_hold_seconds: a lease kept longer ends as if its member were lost; None is off.
    """

    tuning: RequestAdmissionTuningConfig = RequestAdmissionTuningConfig()
    initial_limits: dict[RequestDomain, Cap] = Field(default_factory=dict)
    max_limit_clamps: dict[RequestDomain, Cap] = Field(default_factory=dict)
    default_queue_wait_timeout_seconds: Seconds | None = None
    max_cooldown_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300.0
    max_hold_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class MemberSettings(Settings):
    """How a process takes part in the fleet (spec 06).

    Attributes:
        ttl_seconds: a member whose heartbeat is older than this is expired; it beats every
            third of it.
        call_timeout_seconds: longest wait for an acknowledgement before the typed error.
        recheck_seconds: how often waiters ask for the truth, should a wake-up be lost.
        loop_stall_seconds: heartbeats stop when the event loop has not turned for this long.
    """

    ttl_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 15.0
    call_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    recheck_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    loop_stall_seconds: Annotated[float, Field(gt=0)] = 300.0
