from __future__ import annotations

import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from forebay.coordinator.requests.resolver import RequestResourceResolver


def key(provider: str, model: str, domain: RequestDomain = RequestDomain.CHAT) -> object:
    provider_model = ProviderModelKey(provider_name=provider, model_id=model)
    return RequestResourceKey(provider_model=provider_model, domain=domain)


def test_spellings_of_one_endpoint_have_one_key() -> None:
    resolver = RequestResourceResolver()
    keys = {resolver.resolve(p, m) for p in ("OpenAI", " openai\n") for m in ("gpt", " gpt ")}
    assert keys == {key("openai", "gpt")}


def test_case_of_a_model_id_is_kept() -> None:
    assert RequestResourceResolver().resolve("p", "Org/Model-A") == key("p", "Org/Model-A")


def test_aliases_never_become_part_of_a_key_and_are_remembered() -> None:
    resolver = RequestResourceResolver()
    writer = resolver.resolve("p", "m", provider_alias="east", model_alias="writer")
    judge = resolver.resolve("p", "m", provider_alias="west", model_alias="judge")
    assert writer == judge == resolver.resolve("p", "m")
    assert resolver.aliases_of(writer.provider_model) == ("judge", "writer")
    assert resolver.aliases_of(ProviderModelKey(provider_name="p", model_id="other")) == ()


@pytest.mark.parametrize("kind", ["chat", "embedding", "image", "healthcheck"])
def test_a_kind_is_the_domain_and_leaves_the_model_id_alone(kind: str) -> None:
    assert RequestResourceResolver().resolve("p", "m", kind) == key("p", "m", RequestDomain(kind))


def test_only_where_declared_does_a_kind_become_part_of_the_model_id() -> None:
    resolver = RequestResourceResolver({" Azure": ["Embedding"]})
    embedding = RequestDomain.EMBEDDING
    assert resolver.resolve("azure", "m", "embedding") == key("azure", "m#embedding", embedding)
    assert resolver.resolve("azure", "m", "chat") == key("azure", "m")
    assert resolver.resolve("openai", "m", "embedding") == key("openai", "m", embedding)


@pytest.mark.parametrize(
    ("provider", "model", "kind", "named"),
    [
        ("", "m", "chat", "provider name"),
        ("  ", "m", "chat", "provider name"),
        ("p", " ", "chat", "model id"),
        ("p", "m" * 513, "chat", "model id"),
        ("p", "m", "audio", "generation kind 'audio'"),
        (None, "m", "chat", "provider name"),
        ("p", "m", None, "generation kind"),
    ],
)
def test_a_wrong_name_is_refused_with_its_place(
    provider: str, model: str, kind: str, named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        RequestResourceResolver().resolve(provider, model, kind, model_alias="writer")
    assert str(caught.value).startswith("model 'writer': ")


def test_an_unknown_kind_is_refused_where_endpoints_are_declared() -> None:
    with pytest.raises(ConfigurationError, match="expected one of: chat, embedding, image"):
        RequestResourceResolver({"azure": ["audio"]})
