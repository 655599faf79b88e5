"""The rules of a transport for its requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from forebay.contracts.checks import check_methods, check_type, check_wait, shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestGroupSpec, RequestResourceKey
from forebay.transports.identity import HttpResolver, Resolve
from forebay.workers.providers.classification import (
    Classifier,
    DefaultClassifier,
    check_classifier,
)
from forebay.workers.providers.token_estimate import (
    CharacterEstimator,
    TokenEstimator,
    check_estimator,
)

ReleaseAt = Literal["end", "headers"]
_RELEASES: Final = ("end", "headers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of a transport for its requests.

    Attributes:
        resolve: names the window of a request, None for those that need no lease.
        classifier: reads how attempts ended.
        estimator: says what a request will cost in tokens, for quotas.
        group: who asks, where `current_group` does not say.
        queue_wait_timeout_seconds: longest wait of each attempt in the queue; None takes the
            resource's default.
        release_at: ``end`` holds a lease until the answer's body is read, closed or dropped;
            ``headers`` until a good answer has begun. One of them, or one by resource.

    Raises:
        ConfigurationError: a value of the wrong kind.
    """

    resolve: Resolve = field(default_factory=HttpResolver)
    classifier: Classifier = field(default_factory=DefaultClassifier)
    estimator: TokenEstimator = field(default_factory=CharacterEstimator)
    group: RequestGroupSpec = field(default_factory=RequestGroupSpec)
    queue_wait_timeout_seconds: float | None = None
    release_at: ReleaseAt | Mapping[RequestResourceKey, ReleaseAt] = "end"

    def __post_init__(self) -> None:
        check_methods(
            "resolve", self.resolve, ("__call__",), "pass one, such as forebay.HttpResolver()"
        )
        check_classifier(self.classifier)
        check_estimator(self.estimator)
        if self.queue_wait_timeout_seconds is not None:
            check_wait(self.queue_wait_timeout_seconds)
        check_type("group of a transport", self.group, RequestGroupSpec)
        by_resource = isinstance(self.release_at, Mapping)
        for resource in self.release_at if by_resource else ():
            check_type("a resource of release_at", resource, RequestResourceKey)
        given = self.release_at.values() if by_resource else [self.release_at]  # type: ignore[union-attr]
        for moment in given:
            if moment not in _RELEASES:
                raise ConfigurationError(
                    f"release_at is {shown(moment)}, expected 'end' or 'headers'; use one of them,"
                    " or a mapping of resources to them."
                )

    def releases_at_headers(self, resource: RequestResourceKey) -> bool:
        """Whether a lease of this resource ends when a good answer has begun."""
        moment = self.release_at
        if isinstance(moment, Mapping):
            moment = moment.get(resource, "end")
        return moment == "headers"
