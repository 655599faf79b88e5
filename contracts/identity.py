"""Identities of providers, models, resources and groups (design 02, *Identity*)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from forebay.contracts.checks import check_cap, check_choice, check_name, check_type, check_weight

LARGEST_ADMITTED: Final = 1_000_000_000
"""Largest ``admitted_limit`` of a task group."""


class RequestDomain(StrEnum):
    """The kinds of provider calls that have windows of their own under one aggregate cap.

    Attributes:
        CHAT: chat, completions, responses.
        EMBEDDING: embeddings.
        IMAGE: images and videos.
        HEALTHCHECK: calls that only look whether the provider is there.
    """

    CHAT = "chat"
    EMBEDDING = "embedding"
    IMAGE = "image"
    HEALTHCHECK = "healthcheck"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderModelKey:
    """A canonical provider and model: the unit that has a static cap and a Redis shard.

    Attributes:
        provider_name: the provider, such as ``openai``; text of 1..512 bytes in UTF-8.
        model_id: the model, as the provider names it; bounded alike.

    Raises:
        ConfigurationError: a name that no key can hold.

    Example:
        >>> str(forebay.ProviderModelKey(provider_name="openai", model_id="gpt-5"))
        'openai/gpt-5'
    """

    provider_name: str
    model_id: str

    def __post_init__(self) -> None:
        check_name("provider name", self.provider_name)
        check_name("model id", self.model_id)

    def __str__(self) -> str:
        return f"{self.provider_name}/{self.model_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResourceKey:
    """A provider/model and a domain: the unit that has an adaptive window.

    Attributes:
        provider_model: the canonical provider/model.
        domain: the kind of call; its text ("chat") is taken as well.

    Raises:
        ConfigurationError: a value of another type, or no domain.

    Example:
        >>> gpt = forebay.ProviderModelKey(provider_name="openai", model_id="gpt-5")
        >>> str(forebay.RequestResourceKey(provider_model=gpt, domain="embedding"))
        'openai/gpt-5/embedding'
    """

    provider_model: ProviderModelKey
    domain: RequestDomain = RequestDomain.CHAT

    def __post_init__(self) -> None:
        check_type("provider_model of a request resource", self.provider_model, ProviderModelKey)
        if type(self.domain) is not RequestDomain:
            domain = check_choice("request domain", self.domain, RequestDomain)
            object.__setattr__(self, "domain", domain)

    def __str__(self) -> str:
        return f"{self.provider_model}/{self.domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestGroupSpec:
    """An attempt's group in the weighted fair queue: a run, a tenant, or the resource itself.

    Attributes:
        key: the group's name; None stands for the resource itself.
        weight: its share relative to the other groups of the shard, 0.001..1000; a group's
            weight is the one set last.

    Raises:
        ConfigurationError: a name that no key can hold, or a weight beyond its bounds.

    Example:
        >>> forebay.RequestGroupSpec(key="atlas", weight=3)
        RequestGroupSpec(key='atlas', weight=3.0)
    """

    key: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.key is not None:
            check_name("request group", self.key)
        # A plain float, so that a subclass cannot choose how it is written into a script's ARGV.
        weight = check_weight(f"request group {self.key!r}", self.weight)
        object.__setattr__(self, "weight", weight)


class TaskGroupKind(StrEnum):
    """The kind of resource by which tasks are grouped.

    Attributes:
        LOCAL: the worker's own processor, as of code and templates.
        MODEL: one provider/model.
        CUSTOM_MODEL: a model behind a generator of the user's own.
    """

    LOCAL = "local"
    MODEL = "model"
    CUSTOM_MODEL = "custom_model"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGroupKey:
    """A group of the task queue.

    Attributes:
        kind: what the group's tasks use.
        identity: names from broad to specific, then the flow identity (the output columns).

    Example:
        >>> model = forebay.TaskGroupKind.MODEL
        >>> str(forebay.TaskGroupKey(kind=model, identity=("openai", "gpt-5", "answer")))
        'model/openai/gpt-5/answer'
    """

    kind: TaskGroupKind
    identity: tuple[str, ...]

    def __str__(self) -> str:
        return "/".join((self.kind, *self.identity))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGroupSpec:
    """A group with its weight and the number of running tasks above which it yields to peers.

    Attributes:
        key: the group.
        weight: its share relative to the other groups of the pool, 0.001..1000.
        admitted_limit: tasks, 1..10^9, that the group may run at once beside waiting peers; None
            is no such limit.

    Raises:
        ConfigurationError: a weight or limit beyond its bounds.
    """

    key: TaskGroupKey
    weight: float = 1.0
    admitted_limit: int | None = None

    def __post_init__(self) -> None:
        # A plain float, so that a subclass cannot choose how it is written into a script's ARGV.
        weight = check_weight(f"task group {self.key}", self.weight)
        object.__setattr__(self, "weight", weight)
        if self.admitted_limit is not None:
            check_cap(
                f"admitted_limit of task group {self.key}", self.admitted_limit, LARGEST_ADMITTED
            )


SchedulerResourceKey = str
"""``submission``, ``local``, ``request:<provider>/<model>``, or a name of the user's own."""

SUBMISSION: SchedulerResourceKey = "submission"


def request_resource(provider_model: ProviderModelKey) -> SchedulerResourceKey:
    """Return the scheduler's name of a provider/model: ``request:<provider>/<model>``."""
    return f"request:{provider_model}"
