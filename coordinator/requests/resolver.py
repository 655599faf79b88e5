"""The one factory of request identity (design 02, *Identity*)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestDomain, RequestResourceKey


class RequestResourceResolver:
    """Resolves a user's provider, model and domain to the canonical key of a window.

    Whoever needs a `RequestResourceKey` gets it here, so that two spellings of one endpoint never
    become two windows. Providers are compared without case; model ids keep theirs, since providers
    tell them apart. Aliases are remembered for diagnosis and never become part of a key.

    Args:
        separate_endpoints: by provider, the generation kinds that it serves as endpoints of their
            own, with limits of their own; only there does a kind become part of the model id.

    Raises:
        ConfigurationError: ``separate_endpoints`` names no provider or an unknown kind.
    """

    def __init__(self, separate_endpoints: Mapping[str, Collection[str]] | None = None) -> None:
        self._separate = {
            _canonical_provider(provider): frozenset(_domain_of(kind) for kind in kinds)
            for provider, kinds in (separate_endpoints or {}).items()
        }
        self._aliases: defaultdict[ProviderModelKey, set[str]] = defaultdict(set)

    def resolve(
        self,
        provider_name: str,
        model_id: str,
        generation_kind: str = RequestDomain.CHAT,
        *,
        provider_alias: str | None = None,
        model_alias: str | None = None,
    ) -> RequestResourceKey:
        """Return the key of a model's window.

        Args:
            provider_name: the provider, in any case and with stray blanks.
            model_id: the provider's own id of the model.
            generation_kind: ``chat``, ``embedding``, ``image`` or ``healthcheck``.
            provider_alias: what the user calls the provider; for messages only.
            model_alias: what the user calls the model; for messages and `aliases_of` only.

        Raises:
            ConfigurationError: a name is empty or too long, or the kind is unknown.
        """
        try:
            domain = _domain_of(generation_kind)
            provider = _canonical_provider(provider_name)
            model = _stripped("model id", model_id)
            if domain in self._separate.get(provider, ()):
                model = f"{model}#{domain}"
            key = ProviderModelKey(provider_name=provider, model_id=model)
        except ConfigurationError as error:
            place = _place(provider_alias, model_alias)
            raise ConfigurationError(f"{place}{error}") from error
        if model_alias:
            self._aliases[key].add(model_alias)
        return RequestResourceKey(provider_model=key, domain=domain)

    def aliases_of(self, key: ProviderModelKey) -> tuple[str, ...]:
        """Return the aliases that resolved to a provider/model so far, sorted; for diagnosis."""
        return tuple(sorted(self._aliases.get(key, ())))


def _canonical_provider(name: str) -> str:
    return _stripped("provider name", name).lower()


def _stripped(what: str, name: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(f"{what} must be a non-empty string, not {name!r}; name it.")
    return name.strip()


def _domain_of(kind: str) -> RequestDomain:
    try:
        return RequestDomain(kind.strip().lower())
    except (ValueError, AttributeError) as error:
        known = ", ".join(RequestDomain)
        raise ConfigurationError(
            f"generation kind {kind!r} is unknown, expected one of: {known}; use one of them."
        ) from error


def _place(provider_alias: str | None, model_alias: str | None) -> str:
    named = (("provider", provider_alias), ("model", model_alias))
    place = ", ".join(f"{what} {alias!r}" for what, alias in named if alias)
    return f"{place}: " if place else ""
