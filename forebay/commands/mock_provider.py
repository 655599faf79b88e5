"""``forebay mock-provider``: a model provider with a hidden limit, to try and to test against."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import require_extra
from forebay.mock_provider.truth import ProviderTruth, parse_truth, read_truth_file

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("mock-provider")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--concurrency", type=int, help="Requests at once; the next one gets 429.")
@click.option("--rpm", "requests_per_minute", type=int, help="Requests per minute.")
@click.option("--tpm", "tokens_per_minute", type=int, help="Tokens per minute.")
@click.option(
    "--latency", "latency_median_seconds", type=float, help="Median seconds until the answer."
)
@click.option("--sigma", "latency_sigma", type=float, help="Sigma of the lognormal latency.")
@click.option("--error-rate", type=float, help="Share of requests that end with 500, 0 to 1.")
@click.option(
    "--invalid-json-rate", type=float, help="Share of structured answers that are broken, 0 to 1."
)
@click.option(
    "--retry-after", "retry_after_seconds", type=float, help="Seconds a 429 asks to wait."
)
@click.option(
    "--dialect",
    metavar="NAME",
    help="Provider whose refusals are sent: openai (default), azure, groq, together, ...",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same answers.")
@click.option("--schedule", "schedule_file", type=_FILE, help="TOML file with [[schedule]] steps.")
@click.option("--config", "config_file", type=_FILE, help="TOML file with any field of the truth.")
@click.option(
    "--log",
    "log_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON Lines file, written anew: what was seen and each change of the truth.",
)
@click.option(
    "--api-key-env",
    metavar="NAME",
    help="Environment variable with the key that clients must send.",
)
def mock_provider_command(
    *,
    host: str,
    port: int,
    seed: int,
    schedule_file: Path | None,
    config_file: Path | None,
    log_file: Path | None,
    api_key_env: str | None,
    **options: Any,
) -> None:
    """Run a model provider whose real limits are hidden from its clients.

    It speaks OpenAI's chat and embeddings API, Anthropic's messages API and the chat calls of
    Azure, Gemini, Bedrock, Cohere, Ollama and TGI over HTTP and prints one line, "listening on
    URL". Give that URL to a client of OpenAI's as its base URL, to the others without its /v1.
    Above the limits it answers 429 with retry-after, or as the --dialect words it. Without any
    option there is no limit and no latency.

    Options override the fields of --config. A schedule changes fields over time, counted from the
    first request:

    \b
        [[schedule]]
        at_seconds = 30
        concurrency = 4
        error_rate = 0.1

    GET /truth shows the limits and counters, POST /truth changes them (a JSON object of fields),
    GET /log lists what was seen. Ctrl-C or SIGTERM ends it, with exit code 0.
    """  # noqa: D301 - click's mark for "do not wrap" is the character, not its escape
    try:
        truth = _gather_truth(config_file, schedule_file, options)
        api_key = _read_key(api_key_env)
        _run(truth, host=host, port=port, seed=seed, log_file=log_file, api_key=api_key)
    except ConfigurationError as exc:
        raise click.ClickException(str(exc)) from exc


def _gather_truth(
    config_file: Path | None, schedule_file: Path | None, options: dict[str, Any]
) -> ProviderTruth:
    """Join the truth's fields from files and options, the more special over the more general."""
    fields: dict[str, Any] = {}
    if config_file is not None:
        fields = read_truth_file(config_file)
        parse_truth(fields, origin=str(config_file))
    if schedule_file is not None:
        planned = read_truth_file(schedule_file)
        if set(planned) != {"schedule"}:
            raise ConfigurationError(
                f"{schedule_file}: expected nothing but [[schedule]] tables; "
                "put other fields of the truth into --config"
            )
        parse_truth(planned, origin=str(schedule_file))
        fields = {**fields, **planned}
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        parse_truth({name: value}, origin=f"{_option_of(name)} {value}")
    return parse_truth({**fields, **given})


def _option_of(name: str) -> str:
    """Return what the user typed for a parameter, so that a message can blame that."""
    parameters = click.get_current_context().command.params
    return next((param.opts[0] for param in parameters if param.name == name), name)


def _read_key(api_key_env: str | None) -> str | None:
    if api_key_env is None:
        return None
    key = os.environ.get(api_key_env)
    if not key:
        raise ConfigurationError(
            f"--api-key-env {api_key_env}: that environment variable is not set; "
            "set it to the key that clients must send, or leave the option out"
        )
    return key


def _run(
    truth: ProviderTruth,
    *,
    host: str,
    port: int,
    seed: int,
    log_file: Path | None,
    api_key: str | None,
) -> None:
    require_extra("mock", "the mock provider")
    from forebay.mock_provider.log import ProviderLog
    from forebay.mock_provider.server import serve
    from forebay.mock_provider.state import ProviderState
    from forebay.serving import base_url_of, listen

    listener = listen(host, port)
    try:
        state = ProviderState(truth, seed=seed, log=ProviderLog(path=log_file))
    except ConfigurationError:
        listener.close()
        raise
    url = base_url_of(listener)
    # Both are ordinary ways to end it: the server stops in order, then raises the signal again.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve(
            state, listener, api_key=api_key, on_started=lambda: click.echo(f"listening on {url}")
        )
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)
        counts = ", ".join(f"{name} {count}" for name, count in asdict(state.counters).items())
        click.echo(f"seen: {counts}", err=True)
