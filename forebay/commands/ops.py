"""`forebay ops`: metrics, health and a page that shows the fleet, for a browser and Prometheus."""

from __future__ import annotations

import click

from forebay.commands.lines import say
from forebay.commands.server_option import url_option
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import require_extra
from forebay.contracts.identity import ProviderModelKey
from forebay.runtime import run_async
from forebay.serving import is_loopback, listen, root_url_of


@click.command("ops")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=9180,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--token",
    envvar="FOREBAY_OPS_TOKEN",
    show_envvar=True,
    help="Secret that readers must send; needed where others can reach the address.",
)
@click.option(
    "--allowed-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Name under which browsers reach this; as often as you like.",
)
@click.option(
    "--metric-model",
    "models",
    multiple=True,
    metavar="PROVIDER/MODEL[=LABEL]",
    help="Model with a label of its own in /metrics; all others are summed as 'other'.",
)
def ops_command(
    *,
    url: str,
    host: str,
    port: int,
    token: str | None,
    hosts: tuple[str, ...],
    models: tuple[str, ...],
) -> None:
    """Show the fleet in a browser, and its metrics to Prometheus; change nothing.

    It looks at the server twice a second, whoever watches. The page needs no network beyond this
    address. /metrics is for Prometheus, /healthz for a load balancer (503 while the server is
    away), and /api/fleet, /api/history, /api/events, /api/model?provider=P&model=M,
    /api/pool?name=N and /api/stream (server-sent events) are the page's own JSON.

    On an address that others reach, a token is needed: open the page once as /?token=SECRET, and
    give Prometheus the same secret as its bearer token. Ctrl-C or SIGTERM ends it.

    \b
    Examples:
      forebay ops --url redis://127.0.0.1:6379/0
      FOREBAY_OPS_TOKEN=... forebay ops --host 0.0.0.0 --allowed-host ops.example.org
      forebay ops --metric-model openai/gpt-5 --metric-model anthropic/claude-opus-5=opus
    """  # noqa: D301 - click's mark for "do not wrap" is the character, not its escape
    require_extra("ops", "forebay ops")
    from forebay.ops.server import LOOPBACK_NAMES, OpsSettings, serve

    if token == "":
        raise ConfigurationError(
            "--token is empty, expected a secret that readers send; give one, or leave the option"
            " out on a loopback address."
        )
    labels = dict(map(_labelled, models))
    listener = listen(host, port)
    address = listener.getsockname()[0]
    if token is None and not is_loopback(address):
        listener.close()
        raise ConfigurationError(
            f"--host {host} can be reached by others, who would see every tenant's name; expected a"
            " --token (or FOREBAY_OPS_TOKEN). Give one, or listen on 127.0.0.1."
        )
    names = (*LOOPBACK_NAMES, host, address, *hosts)
    settings = OpsSettings(url=url, token=token, hosts=names, labels=labels)
    at = root_url_of(listener)
    run_async(serve(settings, listener, lambda: say(f"listening on {at}")))
    say("stopped")


def _labelled(text: str) -> tuple[ProviderModelKey, str]:
    """Return a model of the command line with its label; without one, its own name."""
    name, _, label = text.partition("=")
    provider, slash, model = name.partition("/")
    if not (provider and slash and model):
        raise ConfigurationError(
            f"--metric-model {text!r} names no model, expected PROVIDER/MODEL or"
            " PROVIDER/MODEL=LABEL, such as openai/gpt-5=gpt."
        )
    return ProviderModelKey(provider_name=provider, model_id=model), label or model
