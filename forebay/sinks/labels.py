"""Labels of metrics, each with a bounded number of values (design 07, *Two streams*)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.events import RuntimeEvent
from forebay.contracts.outcomes import ReleaseReason, RequestOutcomeKind
from forebay.contracts.requests import RequestDenialReason
from forebay.contracts.tasks import TaskDenialReason

OTHER: Final = "other"
"""Value of a label whose true value is not among the bounded ones."""
NONE: Final = "none"
"""Value of a label without a value in the event."""
BOUNDED: Final = ("event_kind", "resource_kind", "provider", "model", "domain", "reason")
"""The labels that there are: ids, groups, runs and columns are fields of traces."""

_REASONS: Final = frozenset(
    reason.value
    for kind in (RequestOutcomeKind, RequestDenialReason, ReleaseReason, TaskDenialReason)
    for reason in kind
) | {"granted", "error", "completed", "failed", "deferred", "dropped"}


class Labels:
    """Makes the labels of an event.

    Args:
        names: which labels there are to be.
        models: model ids that may be values of ``model``; others are ``other``.
        most_providers: providers that are values of ``provider``, the first ones seen; others are
            ``other``.

    Raises:
        ConfigurationError: a name is none of `BOUNDED`, such as an id.
    """

    def __init__(
        self,
        names: Sequence[str] = BOUNDED,
        models: Collection[str] = (),
        *,
        most_providers: int = 50,
    ) -> None:
        for name in names:
            if name not in BOUNDED:
                raise ConfigurationError(
                    f"label {name!r} of a metric may take any number of values, expected one of"
                    f" {', '.join(BOUNDED)}; ids, groups, runs and columns belong into traces."
                )
        self.names = tuple(names)
        self._models = frozenset(models)
        self._most_providers = most_providers
        self._providers: set[str] = set()

    def of(self, event: RuntimeEvent) -> dict[str, str]:
        """Return the labels of an event, by name."""
        return {name: getattr(self, f"_{name}")(event) for name in self.names}

    def _event_kind(self, event: RuntimeEvent) -> str:
        return str(event.event_kind)

    def _resource_kind(self, event: RuntimeEvent) -> str:
        if event.request_resource_key is not None:
            return "request"
        key = event.scheduler_resource_key
        if key is None:
            return NONE
        kind = key.partition(":")[0]
        return kind if kind in {"submission", "local", "request"} else OTHER

    def _provider(self, event: RuntimeEvent) -> str:
        resource = event.request_resource_key
        if resource is None:
            return NONE
        name = resource.provider_model.provider_name
        if name not in self._providers and len(self._providers) < self._most_providers:
            self._providers.add(name)
        return name if name in self._providers else OTHER

    def _model(self, event: RuntimeEvent) -> str:
        resource = event.request_resource_key
        if resource is None:
            return NONE
        model = resource.provider_model.model_id
        return model if model in self._models else OTHER

    def _domain(self, event: RuntimeEvent) -> str:
        resource = event.request_resource_key
        return NONE if resource is None else resource.domain.value

    def _reason(self, event: RuntimeEvent) -> str:
        reason = event.reason_or_outcome
        if reason is None:
            return NONE
        return reason if reason in _REASONS else OTHER
