"""The option ``--url`` of every command that uses a server, and its variable ``FOREBAY_URL``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.server.urls import parse_url

VARIABLE: Final = "FOREBAY_URL"
FROM_VARIABLE: Final = "forebay.url_from_variable"
"""Key in a context's ``meta``, set if ``FOREBAY_URL`` names the server, for errors."""

Command = TypeVar("Command", bound=Callable[..., Any])


def url_option(help_text: str, **settings: Any) -> Callable[[Command], Command]:
    """Return the option ``--url``; where it is left out, ``FOREBAY_URL`` stands for it.

    Args:
        help_text: what server this is.
        settings: others of `click.option`, such as ``required``.

    Raises:
        ConfigurationError: when the command line is read, the URL has no form that is taken.
    """
    return click.option(
        "--url", envvar=VARIABLE, show_envvar=True, callback=_checked, help=help_text, **settings
    )


def _checked(ctx: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    if ctx.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT:
        ctx.meta[FROM_VARIABLE] = VARIABLE
    if url is not None:
        try:
            parse_url(url)
        except ConfigurationError as error:
            raise ConfigurationError(f"{ctx.meta.get(FROM_VARIABLE, '--url')}: {error}") from None
    return url
