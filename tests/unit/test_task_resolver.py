"""From what generators declare to groups and resources.

Rules: design 02, *Metadata*; design 04, *The ledger*.
"""

from __future__ import annotations

import itertools

import pytest

from forebay.contracts.errors import ConfigurationError, SchedulingMetadataError
from forebay.contracts.identity import TaskGroupKind
from forebay.contracts.scheduling import ModelEndpoint, SchedulingMetadata
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.coordinator.tasks.resolver import TaskSchedulingResolver

REQUESTS = RequestResourceResolver()
RANKER = SchedulingMetadata(
    kind=TaskGroupKind.CUSTOM_MODEL, identity=("custom_model", "acme", "ranker", "2"), weight=3
)


class Declares:
    """A generator that declares these, one after the other, the last for ever."""

    def __init__(self, *metadata: SchedulingMetadata | Exception) -> None:
        self._left = list(metadata)

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        said = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        if isinstance(said, Exception):
            raise said
        return said


SAYS_NOTHING = Declares(SchedulingMetadata())


def endpoint(
    model: str = "large", cap: int = 8, alias: str = "", provider: str = "lab"
) -> ModelEndpoint:
    resource = REQUESTS.resolve(provider, model)
    return ModelEndpoint(resource=resource, static_cap=cap, alias=alias)


def model(*identity: str, weight: int = 8) -> Declares:
    return Declares(
        SchedulingMetadata(
            kind=TaskGroupKind.MODEL, identity=("model", *identity, "chat"), weight=weight
        )
    )


def test_a_generator_that_says_nothing_and_calls_nothing_is_local():
    resolved = TaskSchedulingResolver("acme").resolve(SAYS_NOTHING, ("score",))
    assert str(resolved.group.key) == "local/default/acme/score"
    assert (resolved.group.weight, resolved.group.admitted_limit) == (1, None)
    assert resolved.resource_request.amounts == {"submission": 1}
    assert resolved.request_resource is None
    assert resolved.diagnostics == {}


def test_a_model_asks_for_its_provider_and_has_twice_its_cap_admitted():
    resolved = TaskSchedulingResolver("acme").resolve(
        model("lab", "large"), ("story",), [endpoint()]
    )
    assert str(resolved.group.key) == "model/lab/large/chat/acme/story"
    assert (resolved.group.weight, resolved.group.admitted_limit) == (8, 16)
    assert resolved.resource_request.amounts == {"submission": 1, "request:lab/large": 1}
    assert resolved.request_resource == endpoint().resource


@pytest.mark.parametrize(
    ("weight", "settings", "limit"),
    [
        (128, {}, 256),
        (129, {}, 256),
        (1, {}, 2),
        (10, {"admitted_per_weight": 3}, 30),
        (10, {"most_admitted": 5}, 5),
    ],
)
def test_the_admitted_limit_is_clamped_by_configurable_numbers(weight, settings, limit):
    resolver = TaskSchedulingResolver(**settings)
    resolved = resolver.resolve(model("lab", "large", weight=weight), ("a",))
    assert resolved.group.admitted_limit == limit


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
@pytest.mark.parametrize("name", ["admitted_per_weight", "most_admitted"])
def test_a_wrong_number_is_refused_by_name(name, wrong):
    with pytest.raises(ConfigurationError, match=f"{name} is"):
        TaskSchedulingResolver(**{name: wrong})


@pytest.mark.parametrize(("tenant_weight", "weight"), [(2.5, 20.0), (1e-9, 0.001), (1e9, 1000.0)])
def test_a_tenants_weight_multiplies_within_what_a_group_may_have(tenant_weight, weight):
    resolver = TaskSchedulingResolver("acme", tenant_weight)
    resolved = resolver.resolve(model("lab", "large"), ("a",), [endpoint()])
    assert resolved.group.weight == weight
    assert resolved.group.admitted_limit == 16


def test_aliases_of_one_endpoint_are_one_model_with_the_smallest_cap_in_any_order():
    aliases = [
        endpoint(cap=8, alias="writer"),
        endpoint(cap=3, alias="judge"),
        endpoint(cap=5, alias="third", provider="LAB"),
    ]
    seen = {
        (str(resolved.group), str(resolved.resource_request), str(resolved.diagnostics))
        for order in itertools.permutations(aliases)
        for resolved in [TaskSchedulingResolver("t").resolve(SAYS_NOTHING, ("a",), order)]
    }
    assert len(seen) == 1
    resolved = TaskSchedulingResolver("t").resolve(SAYS_NOTHING, ("a",), aliases)
    assert str(resolved.group.key) == "model/lab/large/chat/t/a"
    assert (resolved.group.weight, resolved.group.admitted_limit) == (3, 6)
    assert resolved.diagnostics == {"assumed": "model", "aliases": ["judge", "third", "writer"]}


def test_several_endpoints_without_metadata_are_a_custom_model_and_it_says_so():
    endpoints = [endpoint("large", 8), endpoint("small", 4)]
    seen = [
        TaskSchedulingResolver("t").resolve(SAYS_NOTHING, ("a",), order)
        for order in (endpoints, endpoints[::-1])
    ]
    assert seen[0] == seen[1]
    key = seen[0].group.key
    assert key.kind is TaskGroupKind.CUSTOM_MODEL
    assert key.identity == ("endpoints", "lab/large/chat+lab/small/chat", "1", "t", "a")
    assert (seen[0].group.weight, seen[0].group.admitted_limit) == (4, 8)
    assert seen[0].resource_request.amounts == {
        "submission": 1,
        "request:lab/large": 1,
        "request:lab/small": 1,
    }
    assert seen[0].request_resource is None
    assert seen[0].diagnostics == {"assumed": "custom_model"}


def test_so_many_endpoints_that_their_names_do_not_fit_are_a_name_that_does():
    endpoints = [endpoint(f"model-{number:03}") for number in range(100)]
    named = [
        TaskSchedulingResolver().resolve(SAYS_NOTHING, ("a",), order).group.key.identity[1]
        for order in (endpoints, endpoints[::-1], endpoints[:-1])
    ]
    assert named[0] == named[1] != named[2]
    assert len(named[0]) == 64


def test_a_custom_model_keeps_its_own_metadata_whatever_it_calls():
    endpoints = [endpoint("large"), endpoint("small")]
    resolved = TaskSchedulingResolver("t").resolve(Declares(RANKER), ("a",), endpoints)
    assert str(resolved.group.key) == "custom_model/acme/ranker/2/t/a"
    assert (resolved.group.weight, resolved.group.admitted_limit) == (3, 6)
    assert resolved.diagnostics == {}


def test_two_columns_over_one_model_are_two_groups():
    resolver = TaskSchedulingResolver("t")
    first, second = (resolver.resolve(SAYS_NOTHING, (n,), [endpoint()]) for n in ("a", "b"))
    assert first.group.key != second.group.key
    assert first.resource_request == second.resource_request


def test_what_was_resolved_once_is_the_same_object_again():
    resolver = TaskSchedulingResolver("t")
    first = resolver.resolve(SAYS_NOTHING, ("a",), [endpoint()])
    assert resolver.resolve(SAYS_NOTHING, ("a",), [endpoint()]) is first


def test_an_error_with_a_fallback_is_gone_on_from_and_told():
    error = SchedulingMetadataError(
        "no_models", "the plugin has none.", fallback=RANKER, diagnostics={"plugin": "ranker"}
    )
    resolved = TaskSchedulingResolver("t").resolve(Declares(error), ("a",))
    assert str(resolved.group.key) == "custom_model/acme/ranker/2/t/a"
    assert resolved.diagnostics == {
        "fallback": "no_models",
        "reason": "the plugin has none.",
        "plugin": "ranker",
    }


@pytest.mark.parametrize(
    ("generator", "endpoints", "code"),
    [
        (Declares(SchedulingMetadataError("no_models", "none.")), [], "no_models"),
        (Declares(SchedulingMetadataError("x", "none.", fallback="local")), [], "x"),
        (Declares({"kind": "local"}), [], "bad_metadata"),  # type: ignore[arg-type]
        (Declares(SchedulingMetadata(), RANKER), [], "not_deterministic"),
        (
            Declares(SchedulingMetadata(identity=("local", "gpu"))),
            [endpoint()],
            "local_with_endpoint",
        ),
        (model("lab", "small"), [endpoint("large")], "other_endpoint"),
        (model("lab", "large"), [endpoint("large"), endpoint("small")], "other_endpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_scheduled_is_refused_with_its_code(generator, endpoints, code):
    with pytest.raises(SchedulingMetadataError) as caught:
        TaskSchedulingResolver("t").resolve(generator, ("a",), endpoints)
    assert caught.value.code == code


def test_a_generator_that_declares_something_else_later_is_refused():
    resolver = TaskSchedulingResolver("t")
    resolver.resolve(Declares(RANKER), ("a",))
    with pytest.raises(SchedulingMetadataError) as caught:
        resolver.resolve(SAYS_NOTHING, ("a",))
    assert caught.value.code == "not_deterministic"
    assert caught.value.diagnostics == {"declared": ["custom_model/acme/ranker/2", "local/default"]}
    with pytest.raises(SchedulingMetadataError):
        resolver.resolve(Declares(RANKER), ("a",), [endpoint()])


@pytest.mark.parametrize("wrong", [{"resource": "lab/large"}, {"static_cap": 0}])
def test_a_wrong_endpoint_is_refused(wrong):
    given = {"resource": endpoint().resource, "static_cap": 1} | wrong
    with pytest.raises(ConfigurationError):
        ModelEndpoint(**given)
