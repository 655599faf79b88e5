"""``forebay proxy``: workers in any language call providers through it, each call under a lease."""

from __future__ import annotations

from typing import Literal

import click

from forebay.commands.lines import say
from forebay.commands.server_option import url_option
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import require_extra
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.logs import Logger
from forebay.runtime import run_async
from forebay.serving import is_loopback, listen, root_url_of

log = Logger("forebay.proxy")

_MEGABYTE = 1_000_000


@click.command("proxy")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    required=True,
    metavar="[NAME=]URL",
    help="Provider, such as https://api.openai.com; as often as you like.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--token",
    envvar="FOREBAY_PROXY_TOKEN",
    show_envvar=True,
    help="Secret that clients must send in the header x-forebay-token.",
)
@click.option(
    "--max-parallel-requests",
    type=click.IntRange(1, 1_000_000_000),
    default=256,
    show_default=True,
    help="Cap of each model; below it the fleet finds the limit by itself.",
)
@click.option(
    "--queue-timeout",
    type=click.FloatRange(0),
    default=300.0,
    show_default=True,
    help="Longest wait of a call for its lease, in seconds; then it is answered with 429.",
)
@click.option(
    "--on-unavailable",
    type=click.Choice(["fail", "wait", "local_share"]),
    default="fail",
    show_default=True,
    envvar="FOREBAY_ON_UNAVAILABLE",
    show_envvar=True,
    help="While the server is away: answer 503, wait longer, or use the proxy's part.",
)
@click.option(
    "--max-body-mb",
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    help="Largest body of a call; it is held in memory while the call waits.",
)
@click.option(
    "--grace",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="Seconds in which calls may end on SIGTERM.",
)
def proxy_command(
    *,
    url: str,
    upstreams: tuple[str, ...],
    host: str,
    port: int,
    token: str | None,
    max_parallel_requests: int,
    queue_timeout: float,
    on_unavailable: Literal["fail", "wait", "local_share"],
    max_body_mb: int,
    grace: int,
) -> None:
    """Pass calls on to model providers, each under a lease of the fleet.

    Give its URL to an SDK of any language as base_url, with /v1 for OpenAI's and without for
    Anthropic's, and keep the provider's key: it is passed on and never logged. Bodies pass byte for
    byte, streams as they come.

    With several upstreams, a path such as /NAME/v1 chooses one. Otherwise calls of Anthropic's API
    go to the upstream named anthropic, other calls to the first upstream of another name. NAME is
    the provider's name in the fleet; by default openai or anthropic for their hosts, else host and
    port.

    The header x-forebay-tenant, or a path such as /t/TENANT/v1, names the tenant of a call, and
    x-forebay-weight its weight. Answers have x-forebay-queue-ms, and x-forebay-held-by
    where a call waited. GET /healthz answers 503 while the server is away. SIGTERM and Ctrl-C let
    calls end.
    """
    require_extra("proxy", "the proxy")
    if token == "":
        raise ConfigurationError(
            "--token is empty, expected a secret that clients send in x-forebay-token; give one, or"
            " leave the option out to ask for none."
        )
    from forebay.proxy.server import ProxySettings, serve
    from forebay.proxy.upstreams import parse_upstream

    settings = ProxySettings(
        url=url,
        upstreams=[parse_upstream(text) for text in upstreams],
        max_parallel_requests=max_parallel_requests,
        queue_seconds=queue_timeout,
        member=MemberSettings(on_unavailable=on_unavailable),
        most_bytes=max_body_mb * _MEGABYTE,
        grace_seconds=grace,
        token=token,
    )
    listener = listen(host, port)
    if token is None and not is_loopback(listener.getsockname()[0]):
        log.warning(
            "proxy_open_to_others",
            host=host,
            reason="whoever reaches this address uses the fleet's capacity, with keys of their own",
            remedy="give a --token, or listen on 127.0.0.1",
        )
    at = root_url_of(listener)
    run_async(serve(settings, listener, lambda: say(f"listening on {at}")))
    say("stopped")
