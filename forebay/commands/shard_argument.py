"""The shard that a command is about: PROVIDER and MODEL, or ``--pool``."""

from __future__ import annotations

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey


def check_shard(
    command: str, provider: str | None, model: str | None, pool: str | None
) -> ProviderModelKey | None:
    """Return the provider/model that was named; None for a pool, or where nothing was named.

    Args:
        command: the command's name, for messages.
        provider: the argument PROVIDER.
        model: the argument MODEL.
        pool: the option ``--pool``.

    Raises:
        ConfigurationError: a provider without a model, or a provider/model and a pool.
    """
    if (provider is None) != (model is None):
        raise ConfigurationError(
            f"forebay {command} was given {provider!r} alone, expected PROVIDER and MODEL, or"
            " --pool NAME; name the model too."
        )
    if provider is None or model is None:
        return None
    if pool is not None:
        raise ConfigurationError(
            f"forebay {command} was given {provider!r}, {model!r} and --pool {pool}, expected one"
            " of the two; call it once for each."
        )
    return ProviderModelKey(provider_name=provider, model_id=model)
